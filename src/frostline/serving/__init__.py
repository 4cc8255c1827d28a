"""Predictions of a trained classifier: over HTTP, in batches, and as a registered model with its own code.

This package may use models, ingest and data. Start with scoring.py, images -> probabilities; app.py is the web
application, packaging.py what goes into MLflow. Every registered model contains inputs.py, scoring.py and pyfunc.py.
"""

__all__ = ["app", "batch", "guarding", "inputs", "listening", "loading", "originals", "packaging", "scoring"]
