"""Sweeps: which settings of params.yaml to try, which trial is worth the next epochs, and what came of it.

It may use training and tracking, and it alone knows Optuna. Start with worker.py, one process that searches;
study.py is what the workers of a sweep share.
"""

__all__ = [
    "lr_range",
    "plots",
    "report",
    "setup",
    "soup",
    "space",
    "storages",
    "study",
    "study_log",
    "trial_data",
    "worker",
]
