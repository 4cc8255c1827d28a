"""Where temporary files lie, those of Keras, TensorFlow and MLflow too: in one folder that ends with its process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from frostline.core import atomic
from frostline.errors import StateError


@contextmanager
def of_this_process() -> Iterator[None]:
    """Let `tempfile` work in a folder of this process within the system's, removed when the block ends.

    What a killed process left is removed by the next one of the same user. Where the folder can't be made, nothing
    changes, and whoever needs a temporary file says why there is none.
    """
    with ExitStack() as stack:
        before = tempfile.tempdir
        with suppress(OSError, StateError):
            system = Path(tempfile.gettempdir()).resolve()
            folder = stack.enter_context(atomic.scratch(system / f"frostline-{os.getuid()}"))
            tempfile.tempdir = str(folder)
            stack.callback(setattr, tempfile, "tempdir", before)
        yield
