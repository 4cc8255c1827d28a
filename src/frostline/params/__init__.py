"""params.yaml: its typed schema, error messages of one line, and editing it in place.

The package may import core. Start with schema.py; finetune.py and schedules.py have its longest sections.
"""

__all__ = ["edit", "finetune", "recipes", "schedules", "schema", "variables"]
