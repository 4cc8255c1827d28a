"""params.yaml: its typed schema, what is wrong with it in one line, and editing it in place.

It may use core. Start with schema.py; finetune.py and schedules.py are its longest sections.
"""

__all__ = ["edit", "recipes", "schedules", "schema", "variables"]
