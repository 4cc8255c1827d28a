"""The activation store: what frozen layers make of images is computed once, and where storing it pays is measured.

It may use models and data. Start with prefix.py, the frozen part of a network and its rows; store.py is the store on
disk, planning.py the decision.
"""

__all__ = ["depths", "extraction", "planning", "predictor", "prefix", "store"]
