"""One folder per process for all temporary files, also those of Keras, TensorFlow and MLflow."""

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
    """Let `tempfile` use a folder of this process within the system's. It is removed when the block ends.

    The next process of the same user removes the folder of a killed one. If the folder can't be created, nothing
    changes, and the code that needs a temporary file reports the error.
    """
    with ExitStack() as stack:
        before = tempfile.tempdir
        with suppress(OSError, StateError):
            system = Path(tempfile.gettempdir()).resolve()
            folder = stack.enter_context(atomic.scratch(system / f"frostline-{os.getuid()}"))
            tempfile.tempdir = str(folder)
            stack.callback(setattr, tempfile, "tempdir", before)
        yield
