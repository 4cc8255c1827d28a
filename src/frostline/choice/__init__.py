"""Which body, and how deep: what frozen features of each depth are worth, before anything is trained.

Start with verdict.py, which says what is recommended and by what numbers. features/depths.py gets the pooled
activations of all depths in one pass, probes.py measures them, measuring.py does both for prepared images, bodies.py
says which bodies there are.
"""

__all__ = ["bodies", "measuring", "plots", "verdict"]
