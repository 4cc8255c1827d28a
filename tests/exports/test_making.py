"""Exports are compared with `predict`, refused if they disagree, and leave a card."""

import dataclasses
import json
import re

import numpy as np
import odd_files
import pandas as pd
import pytest
from conftest import make_bundle, make_shards
from PIL import Image

from frostline.data import images, shards
from frostline.errors import RefusedError, UserError
from frostline.exports import graph, making
from frostline.exports.formats import FORMATS
from frostline.exports.making import Bench, Order
from frostline.ingest.reading import FileReader
from frostline.params.schema import GateSection
from frostline.serving import scoring
from frostline.serving.originals import Originals

NAMES = ("cat", "dog", "cow")
SIDES = [(40, 30), (33, 100), (32, 32), (500, 400)]  # the last one is decoded at a fraction of its size
LENIENT = GateSection(metric="log_loss", margin=5.0, confidence=0.95)
STRICT = GateSection(metric="log_loss", margin=0.0, confidence=0.9999)
AWAY = {"6000x4000.jpg", "1501x2003.jpg", "3000x2000.png"}  # of the corpus: too slow for a test
# Pillow also looks for the orientation in XMP; no graph does.
UNLIKE = {"orientation in XMP.jpg"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("classifier") / "bundle", NAMES)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(12):
        width, height = SIDES[number % len(SIDES)]
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
        rows.append({"path": f"{number}.jpg", "label": number % 3, "sha256": f"{number:064x}"})
    pixels = np.stack([images.prepare(folder / row["path"], 32, "stretch") for row in rows])
    (folder / "test").mkdir()
    test = shards.write(folder / "test", shards.Layout(NAMES, 32, "stretch"), pd.DataFrame(rows), pixels)
    training = make_shards(folder / "train", count=24, classes=3, size=32)
    originals = Originals(str(folder), FileReader(folder), test.index["path"], "test")
    return Bench(test, originals, training, LENIENT, seed=1)


@pytest.mark.process
def test_an_export_is_compared_with_predict(bundle, bench, tmp_path):
    text = making.make(bundle, Order("saved_model"), tmp_path / "out", bench)
    assert "the label of predict on 100.00% of 12 test images as their source has them" in text
    report = json.loads((tmp_path / "out" / "export.json").read_text())["checked"]
    agreement = report["float"]["agreement"]
    assert (agreement["images"], agreement["labels"], agreement["reduced"]) == (12, 1.0, 3)
    assert agreement["largest"] < 1e-5
    assert report["runtime"].startswith("tensorflow ")
    card = (tmp_path / "out" / "export.md").read_text()
    assert "| the same label | 100.00% |" in card
    assert "| the same label for 3 large JPEGs, decoded at their own size |" in card


@pytest.mark.process
def test_a_file_that_disagrees_is_refused_and_nothing_is_left(bundle, bench, tmp_path, monkeypatch):
    other = make_bundle(tmp_path / "other", NAMES, seed=5)

    def write(made, path):
        FORMATS["saved_model"].write(graph.of_bundle(other, graph.PIXELS), path)

    wrong = dataclasses.replace(FORMATS["saved_model"], write=write)
    monkeypatch.setattr(making, "FORMATS", {**FORMATS, "saved_model": wrong})
    with pytest.raises(RefusedError, match=r"another label than predict on \d+.* of 12 test images .*--tolerance"):
        making.make(bundle, Order("saved_model"), tmp_path / "out", bench)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    prepared = dataclasses.replace(bench, originals=None)
    text = making.make(bundle, Order("saved_model", tolerance=1.0), tmp_path / "out", prepared)
    assert re.search(r"the label of predict on \d+.\d\d% of 12 prepared test images", text)


@pytest.mark.process
@pytest.mark.parametrize("form", [name for name, form in FORMATS.items() if form.quantize])
def test_int8_is_kept_if_the_gate_passes(bundle, bench, tmp_path, form):
    making.make(bundle, Order(form, is_int8=True), tmp_path / "out", bench)
    report = json.loads((tmp_path / "out" / "export.json").read_text())["checked"]
    assert report["int8"]["bytes"] < 0.4 * report["float"]["bytes"]
    assert 1e-5 < report["int8"]["agreement"]["largest"] < 0.2
    assert report["float"]["agreement"]["largest"] < 1e-5
    assert "INT8 against float: log_loss" in (tmp_path / "out" / "export.md").read_text()


@pytest.mark.process
def test_int8_that_loses_too_much_is_refused(bundle, bench, tmp_path):
    with pytest.raises(RefusedError, match=r"INT8 loses too much, log_loss .*registry\.gate\.margin"):
        making.make(bundle, Order("litert", is_int8=True), tmp_path / "out", dataclasses.replace(bench, rule=STRICT))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (Order("openvino", is_int8=True), "--int8: openvino is written in float alone; use --format onnx or litert"),
        (Order("onnx", "bytes", is_int8=True), "--int8: an export in 8 bits takes images"),
        (Order("onnx", is_int8=True), "--int8: needs data/prepared"),
        (Order("openvino", "bytes"), "--bytes: openvino can't decode images; use --format saved_model or onnx"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_line(bundle, tmp_path, order, message):
    with pytest.raises(UserError, match=message):
        making.make(bundle, order, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def corpus():
    pixels = np.random.default_rng(1).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((90, 70), Image.Resampling.BICUBIC)
    return {name: data for name, data in odd_files.corpus(picture).items() if name not in AWAY}


@pytest.mark.process
def test_a_saved_model_answers_odd_files_as_predict_does(bundle, corpus, tmp_path):
    making.make(bundle, Order("saved_model", "bytes"), tmp_path / "out", None)
    run, scorer = FORMATS["saved_model"].load(tmp_path / "out" / "saved_model"), scoring.Scorer(bundle)
    answered = 0
    for name, data in corpus.items():
        try:
            expected = scorer.probabilities([scorer.prepare(data)])[0]
        except images.UnreadableImageError:
            expected = None
        if expected is None or not name.endswith((".jpg", ".png")):
            with pytest.raises(
                Exception, match=r"not a JPEG or PNG file|Invalid JPEG|Invalid PNG|contents are unknown"
            ):
                run(data)
        elif name not in UNLIKE:
            np.testing.assert_allclose(run(data)["probabilities"], expected, rtol=0, atol=1e-5, err_msg=name)
            answered += 1
    assert answered >= 50


@pytest.mark.process
def test_onnx_answers_files_or_refuses_them(bundle, corpus, tmp_path):
    """Its decoder would corrupt memory, hang or end the process for what is refused."""
    pytest.importorskip("onnxruntime_extensions")
    making.make(bundle, Order("onnx", "bytes"), tmp_path / "out", None)
    run, scorer = FORMATS["onnx"].load(tmp_path / "out" / "classifier.onnx"), scoring.Scorer(bundle)
    exact = [name for name in corpus if name.startswith("exif") and name.endswith(".png")]
    for name in ("plain.png", "palette.png", "1 bit.png", "31x33.png", "400x1.png", *exact):
        expected = scorer.probabilities([scorer.prepare(corpus[name])])[0]
        np.testing.assert_allclose(run(corpus[name])["probabilities"], expected, rtol=0, atol=1e-5, err_msg=name)
    refused = ("grey.jpg", "CMYK.jpg", "alpha.png", "transparent colour.png", "16-bit grey.png", "plain.gif")
    for name in (*refused, "text.jpg", "empty.jpg", "cut off.jpg", "cut off.png", "header alone.jpg"):
        with pytest.raises(Exception, match="Reshape"):
            run(corpus[name])
