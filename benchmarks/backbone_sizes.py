"""Count layers, parameters and cut points of every backbone at its native size; `frostline backbones` shows them.

    python benchmarks/backbone_sizes.py [NAME...]

Writes src/frostline/models/backbones.csv, whose other rows are kept where names are given: building all takes minutes.
"""

from __future__ import annotations

import csv
import gc
import sys

import keras

from frostline.models import backbones, freezing


def counted(name: str) -> backbones.Size:
    """Build a backbone and count."""
    model = backbones.build(name, "none", backbones.TABLE[name].native).model
    return backbones.Size(len(model.layers), model.count_params(), len(freezing.cut_points(model)))


def main(names: list[str]) -> None:
    sizes = backbones.sizes() if backbones.SIZES.is_file() else {}
    for name in names or backbones.TABLE:
        sizes[name] = counted(name)
        print(name, *sizes[name], flush=True)
        keras.backend.clear_session()
        gc.collect()
        with backbones.SIZES.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["name", *backbones.Size._fields])
            writer.writerows([each, *sizes[each]] for each in backbones.TABLE if each in sizes)


if __name__ == "__main__":
    main(sys.argv[1:])
