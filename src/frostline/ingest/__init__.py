"""From a data source (folder, table, archive or card) to checked, deduplicated and split images.

The package may import data, but not Keras. Start with sources.py. decoding.py decodes all images on all cores,
checks.py lists what is wrong with them, and splits.py decides which of them are trained on.
"""

__all__ = [
    "cards",
    "changes",
    "checks",
    "decoding",
    "deep_images",
    "duplicates",
    "folders",
    "gathering",
    "inspection",
    "listing",
    "reading",
    "report",
    "sources",
    "splits",
    "structures",
]
