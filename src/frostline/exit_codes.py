"""Errors of commands: each becomes one line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from typer.core import TyperCommand

from frostline.errors import FrostlineError, of_system

USER, OURS, INTERRUPTED, BROKEN_PIPE = 2, 1, 130, 141  # the last two are what a shell reports of the signals


class Command(TyperCommand):
    """A command whose errors are one line each."""

    def invoke(self, ctx: Any) -> Any:
        with errors(ctx.find_root().params["debug"]):
            return super().invoke(ctx)


@contextmanager
def errors(debug: bool) -> Iterator[None]:
    """Turn errors into one line and an exit code: 2 for the user's mistakes, 1 for ours. debug: raise them instead."""
    try:
        yield
        sys.stdout.flush()  # here, and not when the interpreter ends: then nobody would catch the error
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to continue", INTERRUPTED)
    except BrokenPipeError:  # the reader of the output has ended: `frostline predict photos | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, FrostlineError):
            _fail(str(error), error.exit_code)
        if isinstance(error, OSError):
            _fail(of_system(error), USER)
        _fail(
            f"frostline's own mistake: {type(error).__name__}: {error}; please report it with --debug's traceback", OURS
        )


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
