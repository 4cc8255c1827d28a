"""The bodies that `frostline choose` compares: those whose weights are at hand, or that somebody names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frostline.core import suggest
from frostline.errors import ParamsError
from frostline.models import backbones, weights
from frostline.models.weights import Locate
from frostline.params.schema import BackboneSection

RANDOM = "frostnet, random"  # the name of the floor


@dataclass(frozen=True)
class Candidate:
    """A body to measure. name: as people see it; section: as params.yaml would have it; top1: accuracy on ImageNet in
    percent, None if it is not known; multiply_adds: for an image of the prepared size, None until it is measured."""

    name: str
    section: BackboneSection
    top1: float | None = None
    multiply_adds: int | None = None


def at_hand(own: BackboneSection) -> list[Candidate]:
    """The bodies whose weights are on this machine: those of the table, and the one of params.yaml."""
    names = [name for name in backbones.TABLE if backbones.whereabouts(name) in ("installed", "cached")]
    found = [_of_table("frostnet"), *map(_of_table, names)]
    known = {(each.section.name, each.section.weights) for each in found}
    return found if (own.name, own.weights) in known else [*found, _of_section(own)]


def named(names: Sequence[str], own: BackboneSection) -> list[Candidate]:
    """The bodies with these names: of the table, `hub/...`, or `params`, the one of params.yaml.

    Raises ParamsError for a name that is not known.
    """
    return [_of_section(own) if name == "params" else _of_table(name) for name in names]


def of_sections(sections: Sequence[BackboneSection]) -> list[Candidate]:
    """The bodies of these sections, without what cuts them."""
    return [_of_section(section) for section in sections]


def registered(uris: Sequence[str], locate: Locate) -> list[Candidate]:
    """The bodies of one's own registered models, by their URIs. Raises the errors of `locate`."""
    from pathlib import Path

    from frostline.models import account

    found = []
    for uri in uris:
        origin = account.read(Path(locate(uri))).made_from.backbone
        section = BackboneSection(name=origin.name, weights=uri, alpha=origin.alpha, until=None)
        found.append(Candidate(uri.removeprefix(weights.REGISTERED), section, _top1(section)))
    return found


def floor() -> Candidate:
    """A body with random weights, which shows what its architecture alone is worth."""
    return Candidate(RANDOM, BackboneSection(name="frostnet", weights="none", alpha=None, until=None))


def _of_table(name: str) -> Candidate:
    if not name.startswith("hub/"):
        _require(name)
    section = backbones.usual(name)
    return Candidate(name, section, _top1(section))


def _require(name: str) -> None:
    if name not in backbones.TABLE:
        raise ParamsError(f"--bodies: {name} is not known; {suggest.hint(name, backbones.TABLE, cutoff=0.0)}")


def _of_section(section: BackboneSection) -> Candidate:
    is_pretrained = section.weights in weights.KEYWORDS and section.weights != "none"
    name = section.name if is_pretrained else f"{section.name}, weights {section.weights}"
    return Candidate(name, section.model_copy(update={"until": None}), _top1(section))


def _top1(section: BackboneSection) -> float | None:
    """The accuracy on ImageNet that is stated for a body; the table states it for the full width alone."""
    row = backbones.TABLE.get(section.name)
    return row.top1 if row and section.alpha in (None, 1.0) else None
