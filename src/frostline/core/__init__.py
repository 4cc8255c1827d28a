"""What any package may need and what knows nothing of images: atomic files, digests, checksums, memory-mapped arrays.

It may use errors.py alone.
"""

__all__ = [
    "atomic",
    "checksum",
    "database_errors",
    "digest",
    "escaping",
    "history",
    "machine",
    "mapped",
    "masking",
    "plain_yaml",
    "progress",
    "suggest",
    "temporary",
]
