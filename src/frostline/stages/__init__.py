"""The four stages that dvc.yaml runs: prepare, augment, finetune, evaluate.

A stage loads its inputs, calls one package, and saves its outputs. It may use all lower packages and no other stage.
Read them in this order: they are the whole pipeline.
"""

__all__ = ["augment", "evaluate", "finetune", "prepare"]
