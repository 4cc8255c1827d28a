"""One short shell a stage: load, call, save."""
