"""`frostline predict`: the predictions of a classifier for images in files, in folders, or on standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from frostline.core.escaping import printable
from frostline.core.executors import Executor
from frostline.errors import DataError
from frostline.models import account
from frostline.params.schema import Params
from frostline.serving import batch, loading
from frostline.tracking import model_uris


def form(as_json: bool, as_csv: bool) -> batch.Form:
    """The format that two options ask for."""
    return "json" if as_json else "csv" if as_csv else "table"


def run(
    params: Params | None,
    names: Sequence[str],
    model: str,
    form: batch.Form,
    out: IO[str],
    executor: Executor | None = None,
) -> None:
    """Predict files, folders (the images below them), globs, or `-`, and write each prediction to `out` immediately.

    model: a bundle's folder or a registered model's URI; executor: where they are predicted, None for this process. `-`
    is standard input: an image, or the names of files, one on each line. Raises DataError if a folder or a pattern has
    no images, and, after all predictions, if some images could not be read.
    """
    requests = batch.find_images(names)
    folder = model_uris.bundle_folder(params.tracking if params else None, model)
    if executor is not None:
        answers = batch.answers_elsewhere(executor, folder, requests)
    else:
        answers = batch.answers(loading.scorer_of(folder), requests)
    writer = batch.WRITERS[form](out, account.read(folder))
    errors = 0
    for answer in answers:
        if answer.error:
            errors += 1
            print(f"{printable(answer.path)}: {printable(answer.error)}", file=sys.stderr)
        writer.row(answer)
    writer.end()
    if errors:
        raise DataError(f"{errors} of {len(requests)} images could not be read: see above; the others are predicted")
