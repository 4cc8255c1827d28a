"""What notebooks use: `frostline.load` and `frostline.train` return objects of this package, which show themselves.

Start with classifier.py; training.py runs the stages of the pipeline, pages.py shows results.
"""

__all__ = ["classifier", "training"]
