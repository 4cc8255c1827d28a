"""Sweeps: which settings of params.yaml to try, which trial is worth the next epochs, and what came of it.

It may use training and tracking, and it alone knows Optuna. Start with worker.py, one process that searches; study.py
is what the workers of a sweep share; crews.py and ray_crew.py are who they are.
"""

__all__ = [
    "crews",
    "lr_range",
    "plots",
    "ray_crew",
    "report",
    "session",
    "setup",
    "space",
    "storages",
]
