"""Asking a trained classifier: over HTTP, in batches, and as a registered model that carries its own code.

It may use models, ingest and data. Start with scoring.py, images -> probabilities; app.py is the web application,
packaging.py what goes into MLflow. inputs.py, scoring.py and pyfunc.py travel with every registered model.
"""

__all__ = ["app", "batch", "guarding", "inputs", "listening", "loading", "packaging", "scoring"]
