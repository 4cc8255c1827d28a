"""The registered model as MLflow calls it: it goes into every model as its own code, beside scoring.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel

from .scoring import NO_PATHS, Scorer, UnusableInputError


class Classifier(PythonModel):
    """Pictures in a table -> label, probability, probabilities by class name.

    The table has one of the columns `image` (encoded bytes; base64 in JSON), `path` (a file that the model can read)
    and `pixels` (uint8 (height, width, 3)).
    """

    def load_context(self, context: Any) -> None:
        """Load the bundle that lies among the model's artifacts."""
        self.scorer = Scorer(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row of answers for each row. Raises MlflowException, a server's status 400, for what is no picture."""
        if "path" in model_input.columns and os.environ.get(NO_PATHS):
            raise MlflowException.invalid_parameter_value("this server reads no files of its own; send `image`")
        try:
            pictures = self.scorer.read(model_input)
        except UnusableInputError as reason:
            raise MlflowException.invalid_parameter_value(str(reason)) from None
        columns = ["label", "probability", "probabilities"]
        return pd.DataFrame(self.scorer.answers(pictures), index=model_input.index, columns=columns)
