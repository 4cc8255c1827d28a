"""The bundle: a trained classifier, and the folder it is saved as.

models/classifier/
├── model.keras    uint8 images (n, size, size, 3) -> probabilities; loads with plain Keras, safe mode on
├── answer.keras   optional: sets of classes and "none of these", behind the former, see answers.py
└── bundle.json    classes in label order, image_size, resize, and what the model was made from
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.data.shards import Layout, Shards
from frostline.models import account, answers, assembly, keras_internals
from frostline.models.answer_facts import AnswerFacts
from frostline.models.backbones import Backbone
from frostline.models.heads import Head
from frostline.models.made_from import MadeFrom

# The earliest date of a zip file: the bytes of a bundle must not depend on the time of saving.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class AnswerNetwork:
    """The network behind a classifier that says its sets and what is unknown, and the facts that it rests on.

    network: see `answers`.
    """

    network: keras.Model
    facts: AnswerFacts


@dataclass(frozen=True)
class Bundle:
    """A trained classifier.

    model: images (n, size, size, 3) in [0, 255] -> softmax (n, classes) or sigmoid (n, 1); answer: None if the
    classifier gives probabilities alone.
    """

    model: keras.Model
    layout: Layout
    made_from: MadeFrom
    answer: AnswerNetwork | None = None

    @property
    def temperature(self) -> float:
        """The number by which the model divides its logits. It is 1 if the model is not calibrated."""
        return 1.0 if self.made_from.temperature is None else self.made_from.temperature

    @property
    def logits(self) -> keras.Model:
        """The model before temperature and sigmoid or softmax: images -> logits (n, units)."""
        layers = {layer.name: layer for layer in self.model.layers}
        return keras.Model(self.model.input, layers.get("temperature", layers["probabilities"]).input)

    def calibrated(self, temperature: float) -> Bundle:
        """The same weights with this temperature, in (0, inf), instead of the one before, and without an `answer`,
        which is valid for one temperature."""
        model = assembly.squashed(self.logits, temperature)
        return Bundle(model, self.layout, replace(self.made_from, temperature=temperature))

    def probabilities(self, images: Shards) -> NDArray[np.float32]:
        """Probabilities of the classes for prepared images, float32 (n, classes)."""
        return assembly.by_class(assembly.outputs(self.model, images))


def parts(bundle: Bundle) -> tuple[Backbone, Head]:
    """The backbone and head of a bundle. They share its weights."""
    origin = bundle.made_from.backbone
    model = bundle.model
    body = next(layer for layer in model.layers if isinstance(layer, keras.Model) and layer.name not in answers.OTHERS)
    top = model.get_layer("head")
    # The bundle has its preprocessing, so the package that the body is from need not be installed.
    preprocess = partial(keras_internals.replay, keras.Model(model.input, model.get_layer("preprocess").output))
    backbone = Backbone(origin.name, body, preprocess, origin.weights != "none")
    return backbone, Head(model.get_layer("pool"), top, top.output.shape[-1])


def save(folder: Path, bundle: Bundle) -> None:
    """Write a bundle into an existing folder. The bytes depend only on its content."""
    networks = {account.MODEL: bundle.model} | ({account.ANSWER: bundle.answer.network} if bundle.answer else {})
    for name, network in networks.items():
        network.save(folder / name)
        _make_reproducible(folder / name)
    facts = bundle.answer.facts if bundle.answer else None
    account.write(folder, account.Account(bundle.layout, bundle.made_from, facts))


def load(folder: Path) -> Bundle:
    """Load a bundle, with Keras's safe mode on. Raises DataError if the folder holds no bundle."""
    record = account.read(folder)
    try:
        model = keras.saving.load_model(folder / account.MODEL, compile=False, safe_mode=True)
        answer = None
        if record.answers is not None:
            network = keras.saving.load_model(folder / account.ANSWER, compile=False, safe_mode=True)
            answer = AnswerNetwork(network, record.answers)
    except Exception as error:  # Keras raises many kinds of errors for other archives
        raise account.unusable(folder, account.first_line(error)) from error
    return Bundle(model, record.layout, record.made_from, answer)


def _make_reproducible(path: Path) -> None:
    """Rewrite a .keras archive so that its bytes depend only on the model.

    Keras writes the date, zip writes the time of every member, and shared objects are numbered by their addresses in
    memory. The date and times are removed, and the objects are numbered in the order of their appearance.
    """
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    members["metadata.json"] = json.dumps({"keras_version": metadata["keras_version"]}).encode()
    numbers: dict[int, int] = {}

    def renumbered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {
            key: numbers.setdefault(value, len(numbers)) if key == "shared_object_id" and value is not None else value
            for key, value in pairs
        }

    members["config.json"] = json.dumps(json.loads(members["config.json"], object_pairs_hook=renumbered)).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), members[name])
