"""Networks: backbones, the weights they start from, the freeze line through them, and the bundle they are saved as.

It may use data for the sizes of images. Start with backbones.py, a table; freezing.py is the freeze line,
assembly.py joins backbone and head, bundles.py saves them, backend.py is what is asked of TensorFlow or JAX directly.
"""

__all__ = [
    "account",
    "assembly",
    "backbones",
    "backend",
    "bundles",
    "calibration",
    "freezing",
    "heads",
    "made_from",
    "sklearn_fit",
    "sklearn_layers",
    "weights",
]
