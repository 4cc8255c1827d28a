"""The presets of KerasHub as names of backbones (`hub/NAME`), checked without loading Keras, which takes 15 seconds."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from frostline.core import suggest
from frostline.errors import ParamsError, WeightsError
from frostline.models.family import Whereabouts

PREFIX = "hub/"
CONFIG = "config.json"  # in a preset's folder, the class and configuration of the backbone

# The packages of KerasHub whose backbones can be used, by the class that a preset's folder names.
MODELS = {
    "CLIPBackbone": "clip",
    "CLIPVisionEncoder": "clip",
    "CSPNetBackbone": "cspnet",
    "DeiTBackbone": "deit",
    "DenseNetBackbone": "densenet",
    "DINOV2Backbone": "dinov2",
    "DINOV3Backbone": "dinov3",
    "EfficientNetBackbone": "efficientnet",
    "HGNetV2Backbone": "hgnetv2",
    "MiTBackbone": "mit",
    "MobileNetBackbone": "mobilenet",
    "ResNetBackbone": "resnet",
    "SigLIPBackbone": "siglip",
    "SigLIPVisionEncoder": "siglip",
    "SwinTransformerBackbone": "swin_transformer",
    "VGGBackbone": "vgg",
    "ViTBackbone": "vit",
    "XceptionBackbone": "xception",
}


@dataclass(frozen=True)
class Preset:
    """A preset that KerasHub knows: its name, its model (a package of KerasHub), parameters, and address at Kaggle."""

    name: str
    model: str
    parameters: int
    handle: str

    @property
    def is_usable(self) -> bool:
        """Whether its backbone can be used here."""
        return self.model in MODELS.values()

    @property
    def whereabouts(self) -> Whereabouts:
        """Whether it is in the cache of kagglehub."""
        cache = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub")
        folder = cache / "models" / self.handle.removeprefix("kaggle://")
        return "cached" if (folder / CONFIG).is_file() else "download"


def is_name(backbone: str) -> bool:
    """Whether `backbone.name` names a preset."""
    return backbone.startswith(PREFIX)


def folder(backbone: str) -> Path | None:
    """The folder of a local preset that `backbone.name` names; None if it names one that KerasHub knows."""
    path = Path(backbone.removeprefix(PREFIX))
    return path if path.is_dir() else None


def is_installed() -> bool:
    """Whether KerasHub is installed."""
    return find_spec("keras_hub") is not None


def check(backbone: str) -> None:
    """Raise WeightsError if KerasHub is missing, ParamsError for a preset that is not known or can't be used."""
    if not is_installed():
        raise WeightsError(
            f"params.yaml: backbone.name {backbone} needs KerasHub, which is not installed; run "
            "`pip install 'frostline[hub]'`"
        )
    path = folder(backbone)
    if path is None:
        _check_known(backbone)
    else:
        _check_folder(path)


@cache
def known() -> dict[str, Preset]:
    """The presets of the installed KerasHub by name; none if it is not installed."""
    spec = find_spec("keras_hub")
    roots = list(spec.submodule_search_locations or []) if spec else []
    files = (file for root in roots for file in sorted(Path(root).glob("src/models/*/*_presets.py")))
    return {preset.name: preset for file in files for preset in _presets(file)}


def usable() -> list[Preset]:
    """The presets of the installed KerasHub whose backbones can be used."""
    return [preset for preset in known().values() if preset.is_usable]


def _check_known(backbone: str) -> None:
    name = backbone.removeprefix(PREFIX)
    preset = known().get(name)
    if preset is None:
        names = [each.name for each in usable()]
        fix = suggest.hint(name, [each for each in names if each.startswith(name)] or names, cutoff=0.0)
        raise ParamsError(
            f"params.yaml: backbone.name {backbone} is no preset of KerasHub, and no folder of one; {fix}"
        )
    if not preset.is_usable:
        raise ParamsError(
            f"params.yaml: backbone.name {backbone} is a preset of {preset.model}, which is no classifier of images "
            "that can be cut; `frostline backbones` lists those that can"
        )


def _presets(file: Path) -> Iterator[Preset]:
    """The presets that a module of KerasHub lists. Its text is read, not run."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            try:
                table = ast.literal_eval(node.value)
            except ValueError:  # some modules join two tables
                continue
            for name, about in table.items() if isinstance(table, dict) else ():
                if isinstance(about, dict) and "kaggle_handle" in about:
                    parameters = int(about.get("metadata", {}).get("params") or 0)
                    yield Preset(name, file.parent.name, parameters, about["kaggle_handle"])


def _check_folder(path: Path) -> None:
    try:
        config: Any = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        name = str(config["class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ParamsError(
            f"params.yaml: backbone.name: {path} is no preset of KerasHub, it has no readable {CONFIG}; name a folder "
            "that save_to_preset wrote"
        ) from error
    if name not in MODELS:
        raise ParamsError(
            f"params.yaml: backbone.name: {path} holds a {name}, which is no classifier of images that can be cut; use "
            f"one of {', '.join(sorted(MODELS))}"
        )
