"""The image classifiers of KerasHub as backbones: `hub/PRESET`, or `hub/FOLDER` for one that `save_to_preset` wrote.

A preset is loaded by KerasHub and becomes a graph of plain Keras layers (`hub_transformers`, `hub_graph`), so a bundle
loads without KerasHub.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.errors import ParamsError, WeightsError
from frostline.models import hub_presets
from frostline.models.family import Family, Whereabouts, reason, why_unreachable

if TYPE_CHECKING:
    import keras

    from frostline.models.preprocessing import Preprocess

CONVERTER = "image_converter.json"  # in a preset's folder
ORIGIN = "https://www.kaggle.com/"  # kagglehub downloads presets from there


def build(name: str, weights: str, size: int, alpha: float | None) -> keras.Model:
    """The body of a preset: preprocessed float32 (n, size, size, 3) -> a feature map, or tokens (n, tokens, width).

    weights: `preset` or `none`. Raises ParamsError if the preset can't be made for images of this size, WeightsError if
    it is not available.
    """
    from frostline.models import backend, keras_internals

    require(name)
    with backend.quiet(), keras_internals.names_from_one():
        body = _loaded(name, weights != "none")
        try:
            return _plain(body, size, _short(name))
        except (ValueError, TypeError) as error:  # KerasHub and Keras raise both for shapes that don't fit
            raise ParamsError(
                f"params.yaml: backbone.name {name} can't be used with data.image_size {size} ({reason(error)}); "
                "use the size in the preset's name, or another backbone"
            ) from error


def preprocess(name: str) -> Preprocess:
    """The preprocessing that the preset's image converter does, without resizing: x * scale + offset."""
    import keras

    converter = _converter(name)
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    return lambda x: keras.layers.Rescaling(scale, offset, name="preprocess")(x)


def require(name: str) -> None:
    """Raise WeightsError if the preset is no folder, not in the cache, and can't be downloaded."""
    if hub_presets.folder(name) or hub_presets.known()[_short(name)].whereabouts == "cached":
        return
    if why := why_unreachable(ORIGIN):
        raise WeightsError(
            f"params.yaml: the preset of backbone.name {name} is not in kagglehub's cache and can't be downloaded "
            f"({why}); connect once, or name the folder of a preset"
        )


def whereabouts(name: str) -> Whereabouts:
    """Whether the preset is a folder, in kagglehub's cache, or only on its server."""
    return "installed" if hub_presets.folder(name) else hub_presets.known()[_short(name)].whereabouts


def _plain(body: Any, size: int, name: str) -> keras.Model:
    """A backbone of KerasHub as a graph of plain Keras layers."""
    from frostline.models import hub_graph, hub_transformers, vision_transformer

    transformer = hub_transformers.read(body, size)
    if transformer is None:
        return hub_graph.opened(_resized(body, size), size, name)
    design, arrays = transformer
    model = vision_transformer.build(design, size, name)
    vision_transformer.set_arrays(model, arrays)
    return model


def _loaded(name: str, with_weights: bool) -> Any:
    """The backbone of a preset, for images of the preset's size."""
    with _errors_of(name):
        import keras_hub

        body = keras_hub.models.Backbone.from_preset(_place(name), load_weights=with_weights)
        return getattr(body, "vision_encoder", body)


def _resized(body: Any, size: int) -> Any:
    """The same backbone for images of `size` pixels a side, if it is made for one size."""
    if body.inputs[0].shape[1] in (None, size):
        return body
    config = body.get_config()
    key = "image_shape" if "image_shape" in config else "input_shape"
    resized = type(body).from_config({**config, key: (size, size, 3)})
    resized.set_weights(body.get_weights())
    return resized


def _converter(name: str) -> Any:
    with _errors_of(name):
        import keras_hub

        folder = hub_presets.folder(name)
        if folder is None:
            return keras_hub.layers.ImageConverter.from_preset(_place(name))
        try:  # `from_preset` refuses the folder of a vision encoder alone
            config = json.loads((folder / CONVERTER).read_text(encoding="utf-8"))
            return keras_hub.layers.ImageConverter.from_config(config["config"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{folder}: has no readable {CONVERTER}, so the scale of its input is not known; save the preset's "
                "image converter into it as well"
            ) from error


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Turn the errors of KerasHub into one of ours."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # KerasHub, kagglehub and requests raise many kinds
        raise WeightsError(
            f"params.yaml: backbone.name {name} can't be loaded ({reason(error)}); connect once, or name the folder "
            "of a preset"
        ) from error


def _place(name: str) -> str:
    """What `from_preset` takes."""
    folder = hub_presets.folder(name)
    return str(folder.resolve()) if folder else _short(name)


def _short(name: str) -> str:
    return Path(name.removeprefix(hub_presets.PREFIX)).name


FAMILY = Family(("preset",), build, preprocess=preprocess, require=require, whereabouts=whereabouts)
