"""Images as arrays: decoding and resizing, shards on disk, seeded augmentation.

The package may import params and core, but not Keras. All code that reads an image uses images.py, and all code that
trains uses shards.py.
"""

__all__ = ["augmentation", "contact_sheet", "data_report", "deep_grey", "images", "memory_budget", "shards", "variants"]
