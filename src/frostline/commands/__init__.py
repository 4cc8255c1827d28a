"""The commands that are not stages: one module for each command of the terminal, with the same name.

A command loads, calls and prints. It may use all lower packages and no other command. `cli.py` has its options.
"""

__all__ = [
    "backbones",
    "choose",
    "doctor",
    "export",
    "features",
    "init",
    "lineage",
    "lr_find",
    "predict",
    "promote",
    "recipe",
    "register",
    "report",
    "serve",
    "sweep",
    "sync",
]
