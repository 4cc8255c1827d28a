"""Count layers, parameters, cut points and multiply-adds of every backbone at its native size, with random weights.

    python benchmarks/backbone_sizes.py [NAME...]

Writes src/frostline/models/backbones.csv, which `frostline backbones` shows, and backbone_layers.json.gz, by which
`frostline doctor` checks names of layers. Other rows are kept where names are given: building all takes minutes.
"""

from __future__ import annotations

import csv
import gc
import sys

import keras

from frostline.models import backbones, freezing, layer_names


def counted(name: str) -> tuple[backbones.Size, list[str]]:
    """Build a backbone and count. The second is the names of its layers and operations, in their order."""
    model = backbones.build(name, "none", backbones.TABLE[name].native).model
    multiply_adds = int(sum(map(freezing.multiply_adds, model.layers)))
    size = backbones.Size(len(model.layers), model.count_params(), len(freezing.cut_points(model)), multiply_adds)
    return size, [operation.name for operation in model.operations]


def main(names: list[str]) -> None:
    sizes = backbones.sizes() if backbones.SIZES.is_file() else {}
    layers = layer_names.table() if layer_names.FILE.is_file() else {}
    for name in names or backbones.TABLE:
        sizes[name], layers[name] = counted(name)
        print(name, *sizes[name], flush=True)
        keras.backend.clear_session()
        gc.collect()
        with backbones.SIZES.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["name", *backbones.Size._fields])
            writer.writerows([each, *sizes[each]] for each in backbones.TABLE if each in sizes)
        layer_names.write({each: layers[each] for each in backbones.TABLE if each in layers}, keras.__version__)


if __name__ == "__main__":
    main(sys.argv[1:])
