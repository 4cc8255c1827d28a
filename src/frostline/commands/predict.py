"""`frostline predict`: what a classifier says of images in files, in folders, or on standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from frostline.core.escaping import printable
from frostline.errors import DataError
from frostline.params.schema import Params
from frostline.serving import batch, loading
from frostline.tracking import model_uris


def run(params: Params | None, names: Sequence[str], model: str, form: batch.Form, out: IO[str]) -> None:
    """Predict files, folders (the images below them), globs, or `-`, and write a line for each to `out` as it comes.

    model: a bundle's folder or a registered model's URI. `-` is an image, or the names of files, one a line. Raises
    DataError for what is not there, and, after all the others are predicted, where some images could not be read.
    """
    requests = batch.requested(names)
    scorer = loading.scorer_of(model_uris.bundle_folder(params.tracking if params else None, model))
    writer = batch.WRITERS[form](out, scorer.classes)
    broken = 0
    for answer in batch.answers(scorer, requests):
        if "error" in answer:
            broken += 1
            print(f"{printable(answer['path'])}: {printable(answer['error'])}", file=sys.stderr)
        writer.row(answer)
    writer.end()
    if broken:
        raise DataError(f"{broken} of {len(requests)} images could not be read: see above; the others are predicted")
