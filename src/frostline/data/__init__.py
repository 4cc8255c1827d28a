"""Images as arrays: the one decode-and-resize, shards on disk, seeded augmentation.

It may use params and core, and knows no Keras. images.py is used by everything that reads an image, shards.py by
everything that trains.
"""

__all__ = ["augmentation", "images", "shards", "variants"]
