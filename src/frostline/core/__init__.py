"""Helpers for all packages that have nothing to do with images: atomic files, digests, checksums, memory-mapped arrays.

The package may import only errors.py.
"""

__all__ = [
    "atomic",
    "checksum",
    "database_errors",
    "digest",
    "escaping",
    "executors",
    "fonts",
    "history",
    "labels",
    "machine",
    "mapped",
    "masking",
    "own_code",
    "plain_yaml",
    "progress",
    "ray_cluster",
    "suggest",
    "temporary",
]
