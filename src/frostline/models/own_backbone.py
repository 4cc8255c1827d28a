"""A backbone of one's own: `backbone.name: package.module:function`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from frostline.core import own_code
from frostline.models.family import Family

if TYPE_CHECKING:
    import keras

KEY = "backbone.name"


class OwnBackbone(Protocol):
    """A backbone of one's own. `backbone.weights` is `builtin` if it brings its weights, `none` if they are random."""

    def __call__(self, size: int) -> keras.Model:
        """A functional model of Keras's own layers, without classification layers: images float32 (n, size, size, 3) in
        [0, 255], which its first layers scale -> a feature map (n, height, width, channels)."""


def build(name: str, weights: str, size: int, alpha: float | None) -> keras.Model:
    """The body that the function makes. Raises ParamsError if it fails or gives another kind of model."""
    import keras

    from frostline.models import keras_internals

    function: OwnBackbone = own_code.function(name, KEY)
    try:
        with keras_internals.names_from_one():
            model = function(size)
        if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
            raise TypeError(f"it gave {type(model).__name__}, not a functional model of Keras")
        if model.input.shape[1:] != (size, size, 3) or len(model.output.shape) not in (3, 4):
            raise ValueError(
                f"its model is from {model.input.shape[1:]} to {model.output.shape[1:]}, not from "
                f"{(size, size, 3)} to a feature map"
            )
        foreign = [layer for layer in model.layers if not keras_internals.is_plain(layer)]
        if foreign:
            raise TypeError(f"{foreign[0].name} is no layer of Keras, which a bundle must load without your code")
    except Exception as error:  # a user's own code may raise anything
        raise own_code.failed(name, KEY, error) from error
    return model


FAMILY = Family(("builtin",), build)
