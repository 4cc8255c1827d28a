"""Transfer learning on a folder of images, with every run reproducible, tracked and honest."""
