"""What a body computes with the weights of a file of torch's, against what torch computes with them.

    python benchmarks/torch_layouts.py [NAME ...]     the table, of all backbones or of some
    python benchmarks/torch_layouts.py --record       the numbers in tests/models/test_torch_weights.py

It needs torch, torchvision and timm, which are no dependencies: `pip install torch torchvision timm safetensors`. The
weights are pseudo-random float32. Both sides compute in float64, since a deep network with random weights can amplify
the rounding of float32 without limit, and what remains then shows whether they compute the same. ConvNeXt does not
amplify it, and its grouped convolutions take minutes in float64.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIDES = (96, 109)  # an odd one too: paddings differ there
# What a network with the same names, but torch's paddings, would give if it were taken for one of Google's.
CONTROLS = {"EfficientNetB0": "efficientnet_b0", "MobileNetV3Large": "mobilenetv3_large_100"}
RECORDED = ("VGG16", "DenseNet121", "ConvNeXtTiny", "EfficientNetB0", "EfficientNetV2B0", "EfficientNetLite0")
RECORD_SIDE = 64


def numbers(name: str, shape: tuple[int, ...]) -> Any:
    """Pseudo-random weights, float32, that depend only on the name of a tensor and on its shape."""
    uniform = np.random.default_rng(zlib.crc32(name.encode())).random(shape).astype(np.float32)
    part = name.rpartition(".")[2]
    if part == "running_var" or part in {"gamma", "layer_scale"}:
        return uniform + np.float32(0.75)
    if len(shape) < 2:
        return uniform / 2 + np.float32(0.75) if part == "weight" else (uniform - np.float32(0.5)) / 5
    return (uniform - np.float32(0.5)) * np.float32(np.sqrt(12 / np.prod(shape[1:])))


def images(side: int) -> Any:
    """Three images, uint8 (3, side, side, 3): smooth waves, their mirror image, and noise."""
    rows, columns, colors = np.ogrid[:side, :side, :3]
    waves = np.sin(rows / 5 + colors) + np.sin(columns / 9 - 2 * colors) + np.sin(rows * columns / 300)
    pixels = (127.5 + 42 * waves).astype(np.uint8)
    noise = np.floor(np.random.default_rng(0).random((side, side, 3)) * 256).astype(np.uint8)
    return np.stack([pixels, pixels[::-1, :, ::-1], noise])


def summary(features: Any) -> Any:
    """Four numbers of the mean of the images and four of each image's difference from it, (4, 4).

    They are sums over channels, weighted by cosines, of features averaged over places. All are scaled to about 1, since
    many layers with random weights leave little of an image.
    """
    means = np.asarray(features).mean((1, 2))
    parts = np.concatenate([means.mean(0, keepdims=True), means - means.mean(0)])
    parts /= np.abs(parts).max(1, keepdims=True)
    return parts @ np.cos(np.arange(parts.shape[1])[:, None] * np.arange(4)) / parts.shape[1] ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    if chosen.record:
        for name in RECORDED:
            source, network = next(networks(name))
            set_numbers(network)
            rows = summary(features(network.double(), name, source, RECORD_SIDE))
            print(f'    "{name}": {np.round(rows, 5).tolist()},')
        return
    import keras
    import timm
    import torch
    import torchvision

    from frostline.models import torch_names

    rows = []
    for name in chosen.names or torch_names.LAYOUTS:
        keras.config.set_floatx("float32" if name.startswith("ConvNeXt") else "float64")
        for source, network in networks(name):
            rows.append((name, source, *compared(name, source, network)))
            print(*rows[-1], flush=True)
        if name in CONTROLS:
            source, network = next(networks(name))
            other = timm.create_model(CONTROLS[name], pretrained_cfg=network.pretrained_cfg).eval()
            rows.append((name, f"timm {CONTROLS[name]}, taken for {source[5:]}", *compared(name, source, other)))
            print(*rows[-1], flush=True)
    if chosen.names:
        return
    from table import show

    show(
        "torch_layouts",
        "The output of a body, against that of torch with the same pseudo-random weights: the largest difference of a "
        f"feature, as a share of the largest one between an image and the mean of three, at {SIDES[0]} and {SIDES[1]} "
        "px. Computed in float64, but for Keras's preprocessing and its ConvNeXt, which are in float32. "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}.",
        ("backbone", "network", "preprocessing", *(f"{side} px" for side in SIDES)),
        rows,
    )


def networks(name: str) -> Iterator[tuple[str, Any]]:
    """The networks of timm and torchvision that have a backbone's layouts, with their source."""
    import timm
    import torch
    import torchvision

    from frostline.models import torch_names

    names = {architecture: None for layout in torch_names.LAYOUTS[name] for architecture in layout.architectures}
    for architecture in names:
        torch.manual_seed(0)
        yield f"timm {architecture}", timm.create_model(architecture).eval()
        if not architecture.startswith("tf_") and hasattr(torchvision.models, architecture):
            yield f"torchvision {architecture}", getattr(torchvision.models, architecture)().eval()


def set_numbers(network: Any) -> None:
    """Set all weights of a network of torch."""
    import torch

    state = network.state_dict()
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    network.load_state_dict({**state, **{key: torch.tensor(numbers(key, each.shape)) for key, each in floats.items()}})


def compared(name: str, source: str, network: Any) -> Iterator[str]:
    """The preprocessing of the loaded body, and the difference at each side."""
    import keras
    import safetensors.torch

    from frostline.models import backbones

    set_numbers(network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        safetensors.torch.save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
        if source.startswith("timm"):
            means = {key: network.pretrained_cfg[key] for key in ("mean", "std")}
            config = {"architecture": source.split()[1], "pretrained_cfg": means}
            Path(folder, "config.json").write_text(json.dumps(config))
            path = path.parent
        alpha = 0.75 if source.endswith("075") else None
        network.double()
        for side in SIDES:
            body = backbones.build(name, str(path), side, alpha=alpha)
            if side == SIDES[0]:
                yield body.loaded.preprocessing
            ours = body.model(body.preprocess(images(side)), training=False)
            yield f"{difference(ours, features(network, name, source, side)):.1e}"
            del body
            keras.backend.clear_session()


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference, as a share of the largest one between a feature and its mean over the images."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs - theirs.mean(0)).max())


def features(network: Any, name: str, source: str, side: int) -> Any:
    """What torch computes where the body ends, (n, s, s, channels), with the preprocessing of its weights."""
    import torch

    config = getattr(network, "pretrained_cfg", None) or {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    with torch.no_grad():
        dtype = next(network.parameters()).dtype
        pixels = torch.tensor(images(side)).to(dtype) / 255
        x = (pixels - torch.tensor(config["mean"], dtype=dtype)) / torch.tensor(config["std"], dtype=dtype)
        x = x.permute(0, 3, 1, 2).contiguous()
        if name.startswith("VGG"):
            x = network.features(x)
        elif name.startswith("DenseNet"):
            x = torch.relu(network.features(x))
        elif name.startswith("ConvNeXt"):  # Keras's body has the norm of the head, at every place
            is_timm = source.startswith("timm")
            x = (
                network.head.norm(network.forward_features(x))
                if is_timm
                else network.classifier[0](network.features(x))
            )
        else:
            x = network.forward_features(x)
    return x.permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    main()
