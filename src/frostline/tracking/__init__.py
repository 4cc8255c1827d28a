"""MLflow: experiments, runs and registered models, written so that doing it again changes nothing.

It may use serving, which packs the models that it logs, and knows no training. Start with tracker.py; runs.py writes
to one run, registry.py moves the champion.
"""

__all__ = [
    "challenge",
    "checkup",
    "compared",
    "contact",
    "git",
    "lineage",
    "model_uris",
    "moves",
    "registry",
    "revisions",
    "run_log",
    "run_writer",
    "runs",
    "states",
    "tracker",
]
