"""Networks: backbones, the weights they start from, the freeze line, and the bundle that a classifier is saved as.

The package may import data, for the sizes of images. Start with backbones.py, a table. Its rows name families of
bodies, such as applications.py; family.py says what a family is. freezing.py has the freeze line, assembly.py joins
backbone and head, bundles.py saves them, answers.py has what a classifier says besides probabilities, and backend.py
calls TensorFlow or JAX directly.
"""

__all__ = [
    "account",
    "all_depths",
    "answer_facts",
    "answers",
    "assembly",
    "backbones",
    "backend",
    "bands",
    "bundles",
    "calibration",
    "devices",
    "freeze_rules",
    "freezing",
    "graph",
    "heads",
    "hub_presets",
    "keras_internals",
    "layer_names",
    "made_from",
    "sklearn_fit",
    "sklearn_layers",
    "vision_transformer",
    "weights",
]
