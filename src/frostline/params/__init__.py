"""params.yaml: its typed schema, error messages of one line, and editing it in place.

The package may import core. Start with schema.py; finetune.py, schedules.py, evaluate.py and sweep.py have its
longest sections.
"""

__all__ = ["edit", "evaluate", "finetune", "recipes", "schedules", "schema", "sweep", "variables"]
