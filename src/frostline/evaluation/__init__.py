"""What a classifier is worth on images it has not seen: numbers with intervals, curves, plots, the model card.

It may use models, and it neither writes to MLflow nor reads params.yaml. Start with metrics.py; gate.py the test
that a challenger must pass.
"""

__all__ = ["card_making", "gate", "gradcam", "plots", "report", "summary"]
