"""Make a project: look at the images, choose, write everything, stage it in git."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from frostline import paths
from frostline.core import suggest
from frostline.errors import DataError, ParamsError, UserError
from frostline.ingest import cards, inspection
from frostline.params import recipes
from frostline.params.schema import Params, load
from frostline.project import (
    appearance,
    choosing,
    placing,
    repository,
    requirements,
    saying,
    settings,
    template,
    wishes,
)
from frostline.project.appearance import Appearance
from frostline.project.wishes import Wish


def create(wish: Wish) -> str:
    """Make the project. Returns lines on what was seen, chosen and written, and what to run next.

    Raises UserError, one line with the fix, before anything is written.
    """
    folder = wish.folder.absolute()
    top = repository.find(folder)
    placing.require_free(folder, [paths.PARAMS, paths.PIPELINE])  # the other files, when the images were looked at
    source = requirements.origin()
    seen = _seen(wish)
    pick = _picked(wish, seen)
    extras = "[imagenet]" if pick.recipe or wish.body else ""  # the body's weights may be a package
    facts = template.facts_of(folder, top, f"{requirements.NAME}{extras}=={source.version}")
    texts = template.files(facts)
    if wish.data is not None:
        del texts[wishes.DEFAULT_SOURCE]
    names = [*texts, paths.PARAMS, paths.REQUIREMENTS]
    placing.require_free(folder, names)
    texts[paths.REQUIREMENTS] = requirements.lock([facts.requirement], source)
    written: list[Params] = []

    def write(temporary: Path) -> None:
        for path, text in texts.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_text(text, encoding="utf-8")
        own = {"data.source": wish.source, "tracking.experiment": facts.name, "registry.name": facts.name}
        changes = {**pick.changes, **own}
        written.append(settings.write(temporary / paths.PARAMS, pick.recipe, changes, wish.body))
        if source.wheel is not None:
            (temporary / paths.WHEELS).mkdir()
            shutil.copy(source.wheel, temporary / paths.WHEELS)
        if top is None:
            repository.start(temporary)

    placing.place(folder, write)
    is_staged = repository.add(folder, names if source.wheel is None else [*names, paths.WHEELS])
    place = f"in the repository {top}" if top else "and a git repository"
    said = f"{wish.folder}/: {len(names)} files, {place}" + ("" if is_staged else "; `git add` failed")
    return saying.text(wish, seen, pick, written[0], said, saying.notes(facts, source, written[0]))


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
