"""Transfer learning: the head on frozen features, then everything above the freeze line, with every epoch resumable.

This package may use features and models, and knows neither MLflow nor Optuna. Start with trainer.py, which does one
whole training; loop.py has what happens in an epoch, course.py which phases there are,
averaging.py how several trainings become one network.
"""

__all__ = ["averaging", "checkpoints", "examples", "inputs", "job", "loop", "networks", "tensorboard", "trainer"]
