"""Versions, champion and challenger in a real MLflow database; what the classifiers say is made up."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_bundle, make_params, make_shards
from PIL import Image

from frostline.commands import promote
from frostline.core import digest
from frostline.errors import DataError, RefusedError, StateError
from frostline.models import backbones, weights
from frostline.serving import inputs, packaging
from frostline.serving.scoring import Scorer
from frostline.tracking import model_uris, moves, registry, run_log
from frostline.tracking import tracker as tracking

pytestmark = pytest.mark.process  # every test works on a database of MLflow and five logged models

CLASSES = ("cat", "dog")
LABELS = np.arange(400) % 2


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """An MLflow database with the runs of five classifiers; digests by name."""
    root = tmp_path_factory.mktemp("registry")
    before = os.environ.get("DVC_ROOT")
    os.environ["DVC_ROOT"] = str(root)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    tracker = tracking.tracker(params().tracking)
    digests = {}
    # How many of the 400 each has right; they are wrong on the first ones.
    for seed, (name, right) in enumerate({"good": 360, "worse": 330, "better": 380, "best": 392, "other": 360}.items()):
        bundle = make_bundle(root / name, CLASSES, seed=seed, size=48 if name == "other" else 32)
        digests[name] = digest.of_folder(bundle)
        with tracker.result(digests[name], name) as log:
            log.model(bundle)
            tested_on = "f" * 64 if name == "other" else "e" * 64
            keep(log, tested_on, right, root)
    yield root, digests
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.pop("DVC_ROOT")
    if before is not None:
        os.environ["DVC_ROOT"] = before


def keep(log, tested_on, right, folder):
    """Made-up predictions, the classes of every second table the other way round."""
    guessed = np.where(np.arange(400) < 400 - right, 1 - LABELS, LABELS)
    probabilities = np.full((400, 2), 0.1, np.float32)
    probabilities[np.arange(400), guessed] = 0.9
    classes = list(CLASSES)
    if right % 20:
        probabilities, classes = probabilities[:, ::-1], classes[::-1]
    table = pd.DataFrame(
        {
            "sha256": [f"{row:064x}" for row in range(400)],
            "label": np.array(CLASSES, object)[LABELS],
            "probabilities": list(probabilities),
        }
    ).sample(frac=1, random_state=right)
    table.attrs["classes"] = classes
    path = folder / "predictions.parquet"
    table.to_parquet(path, index=False)
    log.files([path], run_log.EVALUATION.format(run_log.short(tested_on)))
    log.tags({run_log.TEST_DIGEST: tested_on})


def params(**changes):
    return make_params(tracking__uri="auto", **changes)


@pytest.fixture
def versions(logged, request):
    """A registered model of this test's own with all classifiers; numbers by name."""
    settings = params(registry__name=request.node.name.replace("[", "-").rstrip("]"))
    with registry.registry(settings.tracking, settings.registry.name) as known:
        numbers = {
            name: known.register(
                bundle, {run_log.TEST_DIGEST: ("f" if name == "other" else "e") * 64}, f"the {name} one"
            ).number
            for name, bundle in logged[1].items()
        }
        yield settings, known, {name: str(number) for name, number in numbers.items()}


def test_a_version_is_made_once_and_knows_what_it_was_made_from(versions, logged):
    _, known, numbers = versions
    assert list(numbers.values()) == ["1", "2", "3", "4", "5"]
    assert known.version(moves.CHALLENGER).number == 5
    again = known.register(logged[1]["good"], {"frostline.git_commit": "abc"}, "again")
    assert again.number == 1
    assert again.tags["frostline.git_commit"] == "abc"
    assert known.version(moves.CHALLENGER).number == 1
    folder = known.bundle(again)
    assert digest.of_folder(folder) == again.bundle == logged[1]["good"]
    found = model_uris.bundle_folder(versions[0].tracking, f"models:/{known.name}@challenger")
    assert found.name == folder.name
    for wanted in ("9", "nobody"):
        with pytest.raises(StateError, match=f"has no version or alias {wanted}; take one of 1, 2, 3, 4, 5"):
            known.version(wanted)


def test_a_model_that_is_not_registered_is_told_with_the_nearest_name(versions):
    settings, known, numbers = versions
    promote.promote(settings, numbers["good"], False)
    wrong = {
        f"models:/{known.name[:-2]}@champion": rf"no model is registered as .*; did you mean {known.name}\?",
        "models:/nothere@champion": r"no model is registered as nothere; registered are \w+",
        f"models:/{known.name}@champoin": r"has no version or alias champoin; did you mean champion\?",
        f"models:/{known.name}/9": "has no version or alias 9; take one of 1, 2, 3, 4, 5, challenger, champion",
    }
    for uri, says in wrong.items():
        with pytest.raises(StateError, match=says):
            model_uris.bundle_folder(settings.tracking, uri)  # as predict, serve, export and backbone.weights do
        with pytest.raises(StateError, match=says), registry.located(settings.tracking, uri):  # as lineage does
            pass
    with pytest.raises(StateError, match="names no version; take one of 1"):
        model_uris.bundle_folder(settings.tracking, f"models:/{known.name}")
    with pytest.raises(StateError, match=r"did you mean champion\?"):
        promote.promote(settings, "chmpion", False)


@pytest.mark.skipif(os.getuid() == 0 and shutil.which("setpriv") is None, reason="root without setpriv")
def test_files_that_may_not_be_read_are_named_and_not_taken_for_missing(logged, versions):
    _, known, _ = versions
    code = (
        "import sys; from conftest import make_params; from frostline.errors import StateError\n"
        "from frostline.tracking import model_uris, registry\n"
        "settings = make_params(tracking__uri='auto').tracking\n"
        "with registry.registry(settings, sys.argv[1]) as models:\n"
        "    version = models.version('1')\n"
        "    for read in (lambda: models.predictions(version, 'e' * 64), lambda: model_uris.fetch(version.uri)):\n"
        "        try:\n"
        "            print(read())\n"
        "        except StateError as error:\n"
        "            print(error)\n"
    )
    # Root may read everything, unless its process has given that up.
    as_anybody = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    files = logged[0] / "mlartifacts"
    files.chmod(0)
    try:
        command = [*as_anybody, sys.executable, "-c", code, known.name]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=logged[0])
    finally:
        files.chmod(0o755)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert line.startswith(str(files))
        assert line.endswith("Permission denied; change its permissions, or choose another place")


def test_worse_equal_better_and_incomparable_challengers(versions):
    settings, known, numbers = versions
    assert "the first champion" in promote.promote(settings, numbers["good"], False)
    assert "the champion already" in promote.promote(settings, numbers["good"], False)
    with pytest.raises(RefusedError, match=r"refused, version 2 against champion 1: accuracy 0.8250 against 0.9000 .*"):
        promote.promote(settings, numbers["worse"], False)
    with pytest.raises(StateError, match=r"not tested on the images that version 5 was tested on.*--reevaluate"):
        promote.promote(settings, numbers["other"], False)
    assert known.champion().number == 1
    said = promote.promote(settings, numbers["better"], False)
    assert "accuracy 0.9500 against 0.9000 on the same 400 images: gain +0.0500" in said
    assert "right where the other is wrong: 20 against 0" in said
    # A copy of what is champion now, under another number.
    source = known.client.get_model_version(known.name, "3").source
    equal = known.client.create_model_version(known.name, source, known.version("3").run)
    for key, value in known.version("3").tags.items():
        known.client.set_model_version_tag(known.name, equal.version, key, value)
    assert "gain +0.0000, with 95% confidence at least +0.0000" in promote.promote(settings, str(equal.version), False)

    record = known.moves()
    assert [(move.kind, move.before, move.after) for move in record] == [
        ("promote", None, 1),
        ("promote", 1, 3),
        ("promote", 3, 6),
    ]
    assert "accuracy 0.9500 against 0.9000" in record[1].reason
    assert known.version("3").tags["frostline.promote"].startswith(record[1].time)


def test_rollbacks_undo_promotions_one_by_one(versions):
    settings, known, numbers = versions
    for name in ("good", "better", "best"):
        promote.promote(settings, numbers[name], False)
    assert "/3 is the champion again" in promote.rollback(settings, "too slow")
    assert known.moves()[-1].reason == "too slow"
    assert "/1 is the champion again" in promote.rollback(settings, "still")
    promote.promote(settings, numbers["best"], False)
    assert "/1 is the champion again" in promote.rollback(settings, "no")
    assert "there is no champion any more" in promote.rollback(settings, "all of it")
    with pytest.raises(StateError, match="no promotion is left to undo"):
        promote.rollback(settings, "more")
    assert known.champion() is None


def test_of_two_promotions_that_race_the_better_one_ends_as_champion(versions):
    settings, known, numbers = versions
    promote.promote(settings, numbers["worse"], False)
    outcomes = {}

    def run(name):
        try:
            outcomes[name] = promote.promote(settings, numbers[name], False)
        except RefusedError as error:
            outcomes[name] = str(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("good", "best")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert known.champion().number == int(numbers["best"])
    record = [(move.before, move.after) for move in known.moves()]
    assert record in ([(None, 2), (2, 4)], [(None, 2), (2, 1), (1, 4)])
    assert ("refused" in outcomes["good"]) == (len(record) == 2)


def test_a_champion_that_was_moved_meanwhile_is_not_overwritten(versions):
    settings, known, numbers = versions
    promote.promote(settings, numbers["good"], False)
    seen = known.champion()
    known.client.set_registered_model_alias(known.name, moves.CHAMPION, numbers["best"])  # by hand, in MLflow's UI
    with pytest.raises(StateError, match=r"was moved meanwhile \(now 4\)"):
        known.move("promote", seen, known.version(numbers["better"]), "x")


def test_reevaluation_tests_both_on_the_present_images_and_keeps_that(versions, tmp_path, monkeypatch, capsys):
    settings, _, numbers = versions
    monkeypatch.chdir(tmp_path)
    images = make_shards(tmp_path / "data" / "prepared" / "test", 60, classes=2, names=CLASSES)
    for path, pixels in zip(images.index["path"], images.take(np.arange(60)), strict=True):
        (tmp_path / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "source" / path)
    promote.promote(settings, numbers["good"], False)
    gate = {"metric": "accuracy", "margin": 1.0, "confidence": 0.95}
    wide = params(registry__name=settings.registry.name, registry__gate=gate, data__source="source")
    missing = tmp_path / "source" / images.index["path"].iat[7]
    missing.rename(tmp_path / "elsewhere")
    with pytest.raises(
        DataError, match=rf"source/{images.index['path'].iat[7]}: is in the test split, but no such file"
    ):
        promote.promote(wide, numbers["other"], True)
    (tmp_path / "elsewhere").rename(missing)
    capsys.readouterr()
    assert "on the same 60 images" in promote.promote(wide, numbers["other"], True)
    assert capsys.readouterr().out.count("testing version") == 2
    with registry.registry(wide.tracking, wide.registry.name) as known:
        table = known.predictions(known.version(numbers["other"]), images.source_digest())
        scorer = Scorer(known.bundle(known.version(numbers["other"])))  # takes 48 pixels, from the original files
    there = [scorer.prepare(tmp_path / "source" / path) for path in images.index["path"]]
    np.testing.assert_allclose(np.stack(table["probabilities"]), scorer.probabilities(there), atol=1e-6)
    promote.rollback(settings, "x")
    assert "on the same 60 images" in promote.promote(wide, numbers["other"], True)
    assert capsys.readouterr().out.count("testing version") == 0


def test_an_alias_as_the_start_of_a_training_is_looked_up_once(versions):
    settings, known, numbers = versions
    champion = f"models:/{known.name}@champion"
    promote.promote(settings, numbers["good"], False)
    locate = model_uris.locator(settings.tracking)
    started = locate(champion)
    backbones.check("frostnet", started, 32)
    promote.promote(settings, numbers["better"], False)
    assert locate(champion) == started
    assert weights.content(model_uris.locator(settings.tracking)(champion)) != weights.content(started)
    assert locate("imagenet") == "imagenet"


def test_there_is_no_registry_without_tracking(logged):
    with pytest.raises(StateError, match=r"tracking\.uri is none"):
        promote.promote(make_params(), None, False)
    with pytest.raises(StateError, match="nothing is registered; name a folder"):
        model_uris.bundle_folder(None, "models:/frostline@champion")
    assert model_uris.bundle_folder(None, "models/classifier") == Path("models/classifier")
    for wrong in ("frostline", "models:/frostline", "models:/a/b/c"):
        with (
            pytest.raises(StateError, match="write models:/NAME@ALIAS"),
            registry.located(params().tracking, wrong),
        ):
            pass


def test_of_a_run_whose_process_was_killed_while_it_uploaded_the_whole_model_stays(logged, monkeypatch):
    from mlflow.tracking import MlflowClient

    def killed(*given, **named):
        raise KeyboardInterrupt

    root, _ = logged
    bundle = make_bundle(root / "killed", CLASSES, seed=77)
    client = MlflowClient()
    with tracking.tracker(params().tracking).result("killed", "killed") as log:
        for _ in range(3):  # MLflow sorts a run's outputs by random ids: the whole model isn't always the last one
            with monkeypatch.context() as patch:
                patch.setattr(MlflowClient, "log_model_artifacts", killed)
                with pytest.raises(KeyboardInterrupt):
                    packaging.log(bundle, "classifier", log.id)
        log.model(bundle)
        run = client.get_run(log.id)
        of_run = f"source_run_id = '{log.id}'"
        models = client.search_logged_models([run.info.experiment_id], filter_string=of_run)
        assert [str(model.status) for model in models] == ["READY"]
        assert len(run.outputs.model_outputs) == 4
        assert packaging.logged(client, run) == models[0].model_id


def test_a_saved_model_stands_on_its_own(tmp_path):
    """No pickle, no other code than its own copy, and all of its requirements named."""
    packaging.save(make_bundle(tmp_path / "bundle", CLASSES), tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))]
    assert {"images.py", "inputs.py", "scoring.py", "pyfunc.py", "model.py", "bundle.json", "model.keras"} <= names
    required = (tmp_path / "model" / "requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in required} == {"mlflow", "keras", "tensorflow", "numpy", "pandas", "pillow"}
    assert json.loads((tmp_path / "model/artifacts/bundle/bundle.json").read_text())["classes"] == list(CLASSES)


@pytest.mark.slow
def test_a_saved_model_loads_where_only_its_requirements_are_installed(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", CLASSES)
    packaging.save(bundle, tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    required = str(tmp_path / "model/requirements.txt")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", required], check=True)
    code = (
        "import importlib.util, json, mlflow, pandas, sys\n"
        "assert importlib.util.find_spec('frostline') is None\n"
        "found = mlflow.pyfunc.load_model(sys.argv[1]).predict(pandas.DataFrame({'path': [sys.argv[2]]}))\n"
        "print(json.dumps(found['probabilities'][0]))\n"
    )
    done = subprocess.run(
        [python, "-I", "-c", code, str(tmp_path / "model"), str(tmp_path / "image.png")],
        cwd=tmp_path,
        env={**os.environ, inputs.ALLOW_PATHS: "1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    (expected,) = Scorer(bundle).predictions([Scorer(bundle).prepare(tmp_path / "image.png")])
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(expected.probabilities, abs=1e-5)
