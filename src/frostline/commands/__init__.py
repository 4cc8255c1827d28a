"""What a person runs besides the stages: one module a command of the terminal, named as it is.

A command loads, calls and prints. It may use everything below and no other command. `cli.py` gives it its options.
"""

__all__ = [
    "backbones",
    "doctor",
    "export",
    "features",
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
