"""frostline: find how deep to freeze a pretrained backbone for your folder of images."""
