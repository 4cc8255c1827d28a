"""The names that torchvision and timm give the layers of a body, and which of their networks compute what Keras's do.

A layout is listed only if the body with the weights of such a file gave the features of torch (docs/decisions/0020-*).
Most networks of torch are not the same as those of Keras with that name: torch pads both sides of a strided
convolution, Keras the end. Google's networks that timm calls `tf_...` pad like Keras, but have the names of the others,
so that only the file `config.json` beside the weights tells which of the two a file is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from frostline.models import preprocessing

# What a network was trained on, as mean and standard deviation of pixels in [0, 1].
MEANS = {
    "imagenet": (preprocessing.MEANS, preprocessing.DEVIATIONS),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}

# Names of the layers of a body, in its order -> names of torch's modules.
Rename = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class TorchLayout:
    """A network of torch with the layers of a backbone.

    rename: gives the modules of the layers; mark: a tensor that other layouts have not; head: matches the names of the
    tensors behind the body; ways: the preprocessing (`preprocessing.WAYS`) for each input of MEANS that the network can
    have been trained on, the first is the usual one; architectures: its names in timm; epsilon: of its BatchNorm;
    is_ambiguous: another network has the same names.
    """

    rename: Rename
    mark: str
    head: str
    ways: dict[str, str]
    architectures: tuple[str, ...]
    epsilon: float = 1e-5
    is_ambiguous: bool = False


def _vgg(names: Sequence[str]) -> list[str]:
    """`block3_conv1` -> `features.10`, counting the convolutions and ReLUs, and the pools between the blocks."""
    return [f"features.{2 * place + int(name[5]) - 1}" for place, name in enumerate(names)]


_DENSE = {"0_bn": "norm1", "1_conv": "conv1", "1_bn": "norm2", "2_conv": "conv2"}


def _densenet(names: Sequence[str]) -> list[str]:
    def rename(name: str) -> str:
        if match := re.fullmatch(r"conv(\d)_block(\d+)_(\w+)", name):
            return f"features.denseblock{int(match[1]) - 1}.denselayer{match[2]}.{_DENSE[match[3]]}"
        if match := re.fullmatch(r"pool(\d)_(bn|conv)", name):
            return f"features.transition{int(match[1]) - 1}.{match[2].replace('bn', 'norm')}"
        return {"conv1_conv": "features.conv0", "conv1_bn": "features.norm0", "bn": "features.norm5"}[name]

    return list(map(rename, names))


_TIMM_CONVNEXT = {
    "depthwise_conv": "conv_dw",
    "layernorm": "norm",
    "pointwise_conv_1": "mlp.fc1",
    "pointwise_conv_2": "mlp.fc2",
    "layer_scale": "gamma",
}
_TORCHVISION_CONVNEXT = {
    "depthwise_conv": "block.0",
    "layernorm": "block.2",
    "pointwise_conv_1": "block.3",
    "pointwise_conv_2": "block.5",
    "layer_scale": "layer_scale",
}


def _timm_convnext(names: Sequence[str]) -> list[str]:
    def rename(name: str) -> str:
        if match := re.fullmatch(r".*_stage_(\d)_block_(\d+)_(\w+)", name):
            return f"stages.{match[1]}.blocks.{match[2]}.{_TIMM_CONVNEXT[match[3]]}"
        if match := re.fullmatch(r".*_downsampling_(layernorm|conv)_(\d)", name):
            return f"stages.{int(match[2]) + 1}.downsample.{int(match[1] == 'conv')}"
        return "head.norm" if name.startswith("layer_norm") else f"stem.{int(name.endswith('layernorm'))}"

    return list(map(rename, names))


def _torchvision_convnext(names: Sequence[str]) -> list[str]:
    def rename(name: str) -> str:
        if match := re.fullmatch(r".*_stage_(\d)_block_(\d+)_(\w+)", name):
            return f"features.{2 * int(match[1]) + 1}.{match[2]}.{_TORCHVISION_CONVNEXT[match[3]]}"
        if match := re.fullmatch(r".*_downsampling_(layernorm|conv)_(\d)", name):
            return f"features.{2 * int(match[2]) + 2}.{int(match[1] == 'conv')}"
        return "classifier.0" if name.startswith("layer_norm") else f"features.0.{int(name.endswith('layernorm'))}"

    return list(map(rename, names))


# Modules of timm's four kinds of blocks, by whether the block expands its channels and has a depthwise convolution.
_SQUEEZE = {"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"}
_MODULES = {
    (True, True): {
        **{"expand_conv": "conv_pw", "expand_bn": "bn1", "dwconv": "conv_dw", "bn": "bn2", **_SQUEEZE},
        **{"project_conv": "conv_pwl", "project_bn": "bn3"},
    },
    (False, True): {"dwconv": "conv_dw", "bn": "bn1", **_SQUEEZE, "project_conv": "conv_pw", "project_bn": "bn2"},
    (True, False): {"expand_conv": "conv_exp", "expand_bn": "bn1", "project_conv": "conv_pwl", "project_bn": "bn2"},
    (False, False): {"project_conv": "conv", "project_bn": "bn1"},
}
_ENDS = {"stem_conv": "conv_stem", "stem_bn": "bn1", "top_conv": "conv_head", "top_bn": "bn2"}


def _efficientnet(names: Sequence[str]) -> list[str]:
    """`block2a_dwconv` -> `blocks.1.0.conv_dw`. EfficientNetV2 calls it `dwconv2`. `normalization` has no module."""
    known = set(names)

    def rename(name: str) -> str:
        match = re.fullmatch(r"block(\d)([a-z])_(\w+?)2?", name)
        if match is None:
            return _ENDS.get(name, "")
        block = f"block{match[1]}{match[2]}_"
        has_depthwise = bool({f"{block}dwconv", f"{block}dwconv2"} & known)
        module = _MODULES[f"{block}expand_conv" in known, has_depthwise][match[3]]
        return f"blocks.{int(match[1]) - 1}.{ord(match[2]) - ord('a')}.{module}"

    return list(map(rename, names))


_INVERTED = {
    **{"expand": "conv_pw", "expand_bn": "bn1", "depthwise": "conv_dw", "depthwise_bn": "bn2"},
    **{"squeeze_excite_conv": "se.conv_reduce", "squeeze_excite_conv_1": "se.conv_expand"},
    **{"project": "conv_pwl", "project_bn": "bn3"},
}
_SEPARABLE = {**_INVERTED, "depthwise_bn": "bn1", "project": "conv_pw", "project_bn": "bn2"}


def _mobilenet_v3(repeats: Sequence[int]) -> Rename:
    """repeats: blocks of each stage. Keras counts the blocks of all stages as one row, timm those of each stage."""
    places = [f"{stage}.{place}" for stage, count in enumerate(repeats) for place in range(count)]
    last = f"blocks.{len(repeats)}.0"
    ends = {"conv": "conv_stem", "conv_bn": "bn1", "conv_1": f"{last}.conv", "conv_1_bn": f"{last}.bn1"}

    def rename(name: str) -> str:
        match = re.fullmatch(r"expanded_conv_(?:(\d+)_)?(\w+)", name)
        if match is None:
            return ends[name]
        modules = _INVERTED if match[1] else _SEPARABLE
        return f"blocks.{places[int(match[1] or 0)]}.{modules[match[2]]}"

    return lambda names: list(map(rename, names))


def _google(rename: Rename, ways: dict[str, str], *architectures: str) -> TorchLayout:
    head = r"(classifier|conv_head)\..*"
    return TorchLayout(rename, "conv_stem.weight", head, ways, architectures, 1e-3, is_ambiguous=True)


def _convnexts(size: str) -> tuple[TorchLayout, ...]:
    ways = {"imagenet": "included"}
    return (
        TorchLayout(_timm_convnext, "stem.0.weight", r"head\.fc\..*", ways, (f"convnext_{size}",)),
        TorchLayout(_torchvision_convnext, "features.0.0.weight", r"classifier\.2\..*", ways, (f"convnext_{size}",)),
    )


_TORCH = {"imagenet": "torch", "half": "tf"}
_V2 = {"imagenet": "included", "half": "tf for torch"}
_LARGE, _SMALL = _mobilenet_v3((1, 2, 3, 4, 2, 3)), _mobilenet_v3((1, 2, 3, 2, 3))

# The layouts of each backbone. A body that is not here takes no weights of torch; REFUSED says why where it is known.
LAYOUTS: dict[str, tuple[TorchLayout, ...]] = {
    **{
        name: (TorchLayout(_vgg, "features.0.weight", r"(classifier|pre_logits|head)\..*", _TORCH, (name.lower(),)),)
        for name in ("VGG16", "VGG19")
    },
    **{
        f"DenseNet{depth}": (
            TorchLayout(_densenet, "features.conv0.weight", r"classifier\..*", _TORCH, (f"densenet{depth}",)),
        )
        for depth in (121, 169, 201)
    },
    **{f"ConvNeXt{size}": _convnexts(size.lower()) for size in ("Tiny", "Small", "Base", "Large", "XLarge")},
    # Their layer `normalization` is set to the input of the training.
    **{
        f"EfficientNetB{size}": (
            _google(_efficientnet, {"imagenet": "included", "half": "included"}, f"tf_efficientnet_b{size}"),
        )
        for size in range(8)
    },
    **{f"EfficientNetV2B{size}": (_google(_efficientnet, _V2, f"tf_efficientnetv2_b{size}"),) for size in range(4)},
    **{
        f"EfficientNetV2{size}": (_google(_efficientnet, {"half": "tf for 128"}, f"tf_efficientnetv2_{size.lower()}"),)
        for size in "SML"
    },
    **{
        f"EfficientNetLite{size}": (
            _google(_efficientnet, {"half": "tf", "imagenet": "torch"}, f"tf_efficientnet_lite{size}"),
        )
        for size in range(3)
    },
    "MobileNetV3Large": (
        _google(_LARGE, {"half": "included"}, "tf_mobilenetv3_large_100", "tf_mobilenetv3_large_075"),
    ),
    "MobileNetV3Small": (
        _google(_SMALL, {"half": "included"}, "tf_mobilenetv3_small_100", "tf_mobilenetv3_small_075"),
    ),
}

_STRIDES = "torch's {name} has its strides in other convolutions than Keras's"
_POOLS = "torch's {name} pools the borders of a feature map in another way than Keras's"
REFUSED: dict[str, str] = {
    "MobileNetV2": "torch's MobileNetV2 pads both sides of its strided convolutions, Keras's the end",
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"), _STRIDES),
    **dict.fromkeys(("InceptionV3", "Xception"), _POOLS),
}
