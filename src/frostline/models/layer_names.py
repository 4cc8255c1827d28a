"""The names of the layers of every backbone, so that `frostline doctor` can check one without loading Keras.

`benchmarks/backbone_sizes.py` writes the list, since building all backbones takes minutes.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from frostline.models import freeze_rules
from frostline.models.freeze_rules import Freeze
from frostline.params.schema import Params

FILE = Path(__file__).with_name("backbone_layers.json.gz")


def table() -> dict[str, list[str]]:
    """The names of the layers and operations of each backbone, in their order."""
    layers: dict[str, list[str]] = _content()["layers"]
    return layers


def write(layers: Mapping[str, Sequence[str]], keras: str) -> None:
    """Write the list. keras: the version that gives these names. The bytes depend only on the content."""
    FILE.write_bytes(gzip.compress(json.dumps({"keras": keras, "layers": layers}).encode(), mtime=0))


def check(params: Params) -> None:
    """Check the layers that `backbone.until`, `finetune.freeze` and `sweep.space` name.

    Raises ParamsError, one line with the fix. Names are not checked if another release of Keras is installed than the
    one that gave the list.
    """
    content, name = _content(), params.backbone.name
    if name not in content["layers"] or _release(content["keras"]) != _release(version("keras")):
        return
    names, until = content["layers"][name], params.backbone.until
    if until is not None and until not in names:
        raise freeze_rules.unknown_cut(until, name, names)
    _check_band(params, name, names)
    present = names[: names.index(until) + 1] if until else names
    for rule in _rules(params):
        line = freeze_rules.parse(rule).line
        if isinstance(line, int) or line in ("none", "all", *present) or freeze_rules.share(line) is not None:
            continue
        if until and line in names:
            raise freeze_rules.behind_the_cut(line, until)
        raise freeze_rules.unknown_layer(line, name, names)


def _check_band(params: Params, body: str, names: list[str]) -> None:
    for end in freeze_rules.parse(params.finetune.freeze, params.finetune.train).band or ():
        if isinstance(end, str) and end not in names:
            raise freeze_rules.unknown_end(end, body, names)


def _rules(params: Params) -> list[Freeze]:
    """The freeze rules for the backbone of params.yaml, those of the sweep included."""
    space = params.sweep.space
    choices = space.get("finetune.freeze") if "backbone.name" not in space else None
    words = choices if isinstance(choices, list) else []
    freeze = [] if params.finetune.freeze is None else [params.finetune.freeze]
    return [*freeze, *(word for word in words if isinstance(word, int | str))]


def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(FILE.read_bytes()))
    return content


def _release(keras: str) -> list[str]:
    return keras.split(".")[:2]
