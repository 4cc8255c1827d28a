"""Predictions of a trained classifier: over HTTP, in batches, and as a registered model with its own code.

This package may use models, ingest and data. Start with scoring.py, images -> probabilities; app.py is the web
application, served.py the model that answers there, packaging.py what goes into MLflow. Every registered model contains
inputs.py, batching.py, scoring.py and pyfunc.py.
"""

__all__ = [
    "app",
    "batch",
    "bounds",
    "feedback",
    "following",
    "guarding",
    "inputs",
    "listening",
    "loading",
    "metrics",
    "neighbours",
    "originals",
    "packaging",
    "recording",
    "scoring",
    "served",
]
