"""The errors a person can meet, as a tree.

FrostlineError            the base; its text is one line that names the file or key and the fix
├── UserError             the user's mistake: exit code 2
│   ├── ParamsError       a key of params.yaml
│   ├── DataError         an image, a folder of images, a card
│   ├── WeightsError      a backbone's weights
│   ├── DivergedError     a training whose loss is no longer finite
│   ├── StateError        a place outside the stage outputs: cache, checkpoints, tracking database, registry
│   │   └── UnreachableError   a server that does not answer now, and may do so later
│   └── RefusedError      a promotion that the gate refused
└── InternalError         our mistake: exit code 1
"""

import errno

# The numbers of an operating system's errors that say that a disk, or somebody's share of it, is full.
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class FrostlineError(Exception):
    """Base of every error that frostline raises on purpose."""

    exit_code = 1


class UserError(FrostlineError):
    """Something the user can fix; the message says how."""

    exit_code = 2


class ParamsError(UserError):
    """A key of params.yaml is missing, unknown, ill-typed or contradicts another."""


class DataError(UserError):
    """The data source can't be used as it is."""


class WeightsError(UserError):
    """A backbone's weights can't be found, or belong to another architecture."""


class DivergedError(UserError):
    """A training's loss is no longer finite; its settings are at fault."""


class StateError(UserError):
    """A folder or database that frostline keeps its state in can't be used."""


class UnreachableError(StateError):
    """A server does not answer now; the same call may work later."""


class RefusedError(UserError):
    """A challenger was not shown to be good enough."""


class InternalError(FrostlineError):
    """An invariant of frostline itself is broken: please report it."""


# What to do about an operating system's error, by its number.
FIXES = {
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "free some of your share of the disk, or choose another disk",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.EIO: "its disk fails: check the disk, or choose another",
    errno.ENOENT: "check its path",
    errno.ENOTDIR: "a file is in the way: move it away, or choose another place",
    errno.EISDIR: "a folder is in the way: move it away, or choose another place",
    errno.EMFILE: "raise the limit on open files (`ulimit -n 4096`)",
    errno.ENOMEM: "end other programs, or lower data.image_size or cache.memory_gb",
}


def of_system(error: OSError) -> str:
    """An operating system's error as one line that names the file, where it is known, and the fix."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{error.filename}: {reason}; {FIXES.get(error.errno or 0, 'choose another place')}"
    if error.errno in NO_SPACE or "temporary directory" in reason:  # that is Python's word where none can be written
        return f"{reason}; free some space there, or name another folder for temporary files by TMPDIR"
    return f"{reason}; {FIXES.get(error.errno or 0, 'check the disk and the network')}"
