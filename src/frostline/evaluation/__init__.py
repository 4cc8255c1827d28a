"""How good a classifier is on images it has not seen: numbers with intervals, curves, plots, the model card.

This package may use models. It neither writes to MLflow nor reads params.yaml. Start with metrics.py; gate.py has the
test that a challenger must pass.
"""

__all__ = ["card_making", "gate", "gradcam", "markdown", "plots", "report", "scores", "summary"]
