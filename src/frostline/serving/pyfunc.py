"""The registered model as MLflow calls it: it goes into every model as its own code, beside scoring.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel

from .inputs import UnusableInputError, column_of, environment_limits
from .scoring import Scorer


class Classifier(PythonModel):
    """Images in a table -> label, probability, probabilities by class name.

    The table has one of the columns `image` (encoded bytes; base64 in JSON), `path` (a regular file that the model can
    read) and `pixels` (uint8 (height, width, 3)). A model can't tell who asks it, its own program or a stranger over
    HTTP, so `path` is refused where FROSTLINE_ALLOW_PATHS=1 is not set, and an image with more than
    FROSTLINE_MAX_MEGAPIXELS (50) always.
    """

    def load_context(self, context: Any) -> None:
        """Load the bundle that lies among the model's artifacts."""
        try:
            limits = environment_limits()
        except ValueError as reason:
            raise MlflowException.invalid_parameter_value(str(reason)) from None
        self.scorer = Scorer(Path(context.artifacts["bundle"]), limits)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row of answers for each row. Raises MlflowException, a server's status 400, for what is no image."""
        try:
            column = column_of(model_input.columns)
            answers = self.scorer.rows(column, list(model_input[column]))
        except UnusableInputError as reason:
            raise MlflowException.invalid_parameter_value(str(reason)) from None
        columns = ["label", "probability", "probabilities"]
        return pd.DataFrame(answers, index=model_input.index, columns=columns)
