"""What a classifier says of its own limits: sets of classes that hold the right one as often as promised, and "none of
these" for an image that shows something else.

It may use features and models. Start with fitting.py, which adds both to a trained bundle. conformal.py has
the sets; space.py the distances of features, evidence.py the scores made of them, and leaving_out.py chooses one.
"""

__all__ = ["fitting"]
