"""The registered model as MLflow calls it. This file is copied into every registered model, with scoring.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel

from .inputs import UnusableInputError, column_of, environment_limits
from .scoring import Scorer


class RegisteredClassifier(PythonModel):
    """Images in a table -> label, probability, probabilities by class name, and set and unknown if the bundle has them.

    The table has one of the columns `image` (encoded bytes; base64 in JSON), `path` (a regular file that the model can
    read) and `pixels` (uint8 (height, width, 3)). A model does not know whether its own program or a client over HTTP
    asks for a prediction, so `path` is refused unless FROSTLINE_ALLOW_PATHS=1 is set, and an image with more than
    FROSTLINE_MAX_MEGAPIXELS (50) megapixels is always refused.
    """

    def load_context(self, context: Any) -> None:
        """Load the bundle in the artifacts of the model."""
        try:
            limits = environment_limits()
        except ValueError as reason:
            raise MlflowException.invalid_parameter_value(str(reason)) from None
        self.scorer = Scorer(Path(context.artifacts["bundle"]), limits)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One answer for each row. Raises MlflowException, status 400 of a server, if a row is not an image."""
        try:
            column = column_of(model_input.columns)
            predictions = self.scorer.rows(column, list(model_input[column]))
        except UnusableInputError as reason:
            raise MlflowException.invalid_parameter_value(str(reason)) from None
        columns = ["label", "probability", "probabilities", *self.scorer.says]
        rows = [each.as_json() for each in predictions]
        return pd.DataFrame(rows, index=model_input.index, columns=columns)
