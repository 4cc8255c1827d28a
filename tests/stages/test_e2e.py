"""The main job of a new user: clone, `dvc repro`, look at the results; then experiments, a kill, and a new image.

The tests run real processes, so they are few and each checks much. All use one clone, in their order.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project import Project

SHORT = {"augment": {"copies": 1}, "finetune": {"head_epochs": 2, "epochs": 4}}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("e2e") / "clone")


def test_a_fresh_clone_trains_evaluates_and_tracks(project):
    output = project("dvc", "repro")
    metrics = project.json("reports/metrics.json")
    assert metrics["accuracy"] >= 0.92  # one seed; for three, see benchmarks/digits.py
    low, high = metrics["accuracy_ci95"]
    assert low < metrics["accuracy"] < high
    assert {"macro_f1", "log_loss", "ece", "n_test", "test_digest"} <= set(metrics)
    assert f"test accuracy {metrics['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}" in output
    for line in ("reports/model_card.md", "make ui", "dvc exp run -S finetune.freeze=none"):
        assert line in output.split("test accuracy")[1]

    data = project.json("reports/data.json")
    assert data["images"]["train"] == 100
    assert data["images"]["test"] == metrics["n_test"]
    predictions = pd.read_parquet(project.folder / "reports/predictions.parquet")
    assert (predictions["label"] == predictions["predicted"]).mean() == pytest.approx(metrics["accuracy"], abs=5e-5)
    np.testing.assert_allclose(predictions["probabilities"].map(sum), 1, rtol=1e-5)
    assert {path.name for path in (project.folder / "reports/plots").iterdir()} == {
        "learning_curves.png",
        "confusion.png",
        "mistakes.png",
        *(
            f"{name}.{kind}"
            for name in ("reliability", "risk_coverage", "roc", "precision_recall")
            for kind in ("csv", "png")
        ),
    }
    card = (project.folder / "reports/model_card.md").read_text()
    assert f"{metrics['accuracy']:.4f}" in card
    assert metrics["test_digest"] in card


def test_the_run_records_settings_metrics_data_and_the_model(project):
    import mlflow

    (run,) = project.runs()
    history = pd.read_csv(project.folder / "reports/history.csv")
    assert run.info.status == "FINISHED"
    assert run.data.params["finetune.freeze"] == "block4_out"
    assert run.data.params["audit.frozen_layers"] == "34"
    assert 25 <= len(run.data.params) <= 35
    client = mlflow.MlflowClient()
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"plots", "history.csv", "model_card.md", "augment.png", "data.json"} <= artifacts
    with tempfile.TemporaryDirectory() as folder:
        kept = {
            name: json.loads(Path(client.download_artifacts(run.info.run_id, name, folder)).read_text())
            for name in ("settings.json", "bundle.json")
        }
    assert kept["settings.json"]["settings"]["augment.rotation"] == 15
    assert kept["settings.json"]["dvc.lock"].keys() == {"data/prepared", "data/augmented"}
    made_from = kept["bundle.json"]["made_from"]
    assert made_from["audit"]["frozen_layers"] == 34
    groups = made_from["groups"]
    assert [group["learning_rate"] for group in groups] == [0, 0, 0.001, 0.001, 0.001]
    assert [group["thawed"] for group in groups] == [0, 0, 1, 1, 1]
    assert (groups[1]["name"], groups[-1]["name"]) == ("block3_1_conv..block4_out", "head")
    names = list(run.data.metrics)  # in the order in which MLflow shows them
    assert names[:5] == ["val_accuracy", "val_loss", "train_accuracy", "train_loss", "train_seconds"]
    assert names[5] == sorted(names)[0] == "test_accuracy"
    assert run.info.run_name == "digits frostnet freeze=block4_out lr=0.001"
    assert not [tag for tag in run.data.tags if tag.startswith("dvc.lock")]
    assert run.data.metrics["test_accuracy"] == project.json("reports/metrics.json")["accuracy"]
    points = client.get_metric_history(run.info.run_id, "val_loss")
    assert [metric.step for metric in points] == history["step"].tolist() == list(range(1, 27))
    np.testing.assert_allclose([metric.value for metric in points], history["val_loss"], rtol=1e-3)
    digests = project.json("reports/data.json")["digests"]
    inputs = {i.tags[0].value: i.dataset.digest for i in run.inputs.dataset_inputs}
    assert inputs == {
        "training": digests["train"]["source"][:32],
        "validation": digests["val"]["source"][:32],
        "test": digests["test"]["source"][:16],
    }
    images = project.json("reports/data.json")["images"]
    profiles = {i.tags[0].value: json.loads(i.dataset.profile) for i in run.inputs.dataset_inputs}
    names = {"training": "train", "validation": "val", "test": "test"}
    assert profiles == {name: {"images": images[split], "classes": 10} for name, split in names.items()}
    head = project("git", "rev-parse", "HEAD").strip()
    assert run.data.tags["frostline.git_commit"] == head
    assert run.data.tags["frostline.git_dirty"] == "false"

    (model,) = client.search_logged_models([run.info.experiment_id])
    classifier = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    images = np.load(project.folder / "data/prepared/test/images-00000.npy", mmap_mode="r")[:8]
    expected = np.stack(pd.read_parquet(project.folder / "reports/predictions.parquet")["probabilities"][:8])
    answers = classifier.predict(pd.DataFrame({"pixels": list(images)}))
    np.testing.assert_allclose([list(row.values()) for row in answers["probabilities"]], expected, atol=1e-5)


@pytest.mark.process
def test_a_second_repro_runs_nothing_and_dvcs_own_commands_work(project):
    project.commit()
    output = project("dvc", "repro")
    assert "Running stage" not in output
    assert project("git", "status", "--porcelain") == ""
    assert "accuracy" in project("dvc", "metrics", "show")
    assert "index.html" in project("dvc", "plots", "show")
    project.change({"finetune": {"epochs": 3}})
    assert "finetune.epochs" in project("dvc", "params", "diff")
    project("git", "checkout", "-q", "params.yaml")


@pytest.mark.slow
def test_an_experiment_in_a_temporary_folder_is_in_the_projects_database(project):
    settings = ["finetune.freeze=none", "augment.copies=1", "finetune.head_epochs=2", "finetune.epochs=2"]
    project("dvc", "exp", "run", "--temp", "-n", "thaw", *(part for s in settings for part in ("-S", s)))
    latest, first = project.runs()
    assert latest.data.tags["DVC_EXP_NAME"] == "thaw"
    assert latest.data.tags["DVC_EXP_BASELINE_REV"] == project("git", "rev-parse", "HEAD").strip()
    assert latest.info.run_name == "digits frostnet freeze=none lr=0.001 thaw"
    assert latest.data.params["finetune.freeze"] == "none"
    assert latest.data.params["audit.frozen_layers"] == "0"
    assert "test_accuracy" in latest.data.metrics
    assert "DVC_EXP_NAME" not in first.data.tags
    assert "thaw" in project("dvc", "exp", "show", "--csv")


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_weights_of_an_uninterrupted_one(project):
    project.change(SHORT)
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=project.folder,
        env=project.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if line.startswith("finetune   2/4"):
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.wait()
    assert not (project.folder / "models/classifier").exists()
    killed_run = project.runs()[0]
    assert killed_run.info.status == "RUNNING"

    output = project("dvc", "repro")
    assert "resuming after epoch" in output
    assert "finetune   1/4" not in output
    assert project.runs()[0].info.run_id == killed_run.info.run_id
    assert project.runs()[0].info.status == "FINISHED"
    assert not list((project.folder / ".frostline/checkpoints").glob("*.snapshot"))
    import mlflow

    points = mlflow.MlflowClient().get_metric_history(killed_run.info.run_id, "val_loss")
    assert [metric.step for metric in points] == [1, 2, 3, 4, 5, 6]

    project.commit()
    output = project("dvc", "repro", "--force")  # from the start, uninterrupted
    assert "resuming" not in output
    assert "finetune   1/4" in output
    assert project("git", "diff", "--stat", "dvc.lock") == ""


@pytest.mark.slow
def test_another_source_is_one_setting_and_a_new_image_is_noticed(project):
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (project.folder / "data/pets" / label).mkdir(parents=True)
        for number in range(12):
            image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(image).save(project.folder / f"data/pets/{label}/{number}.png")
    changes = {
        "data": {"source": "data/pets", "train_per_class": None},
        "evaluate": {"top_k": 1, "calibrate": "temperature"},
    }
    project.change(changes)
    project("dvc", "repro")
    assert project.json("reports/data.json")["classes"] == ["cat", "dog"]
    bundle, metrics = project.json("models/classifier/bundle.json"), project.json("reports/metrics.json")
    assert bundle["made_from"]["temperature"] == metrics["temperature"]
    assert {"ece_uncalibrated", "log_loss_uncalibrated"} <= set(metrics)
    assert "Running stage" not in project("dvc", "repro")
    shutil.copy(project.folder / "data/pets/cat/0.png", project.folder / "data/pets/cat/copy.png")
    output = project("dvc", "repro")
    assert "; 1 dropped" in output
    assert "Stage 'augment' didn't change, skipping" in output or "Running stage 'augment'" not in output


@pytest.mark.process
def test_variants_of_other_images_are_refused(project):
    project.change({"augment": {"copies": 1}})
    shutil.rmtree(project.folder / "data/augmented")
    output = project("frostline", "finetune", ok=False)
    assert "data/augmented: does not hold augment.copies = 1 variants of the images in data/prepared/train" in output
    project("dvc", "checkout")


@pytest.mark.process
def test_a_mistake_in_a_stage_leaves_no_incomplete_output(project):
    project.change({"finetune": {"freeze": "no_such_layer"}})
    output = project("dvc", "repro", ok=False)
    assert "error: params.yaml: finetune.freeze 'no_such_layer' is not a layer of frostnet" in output
    assert not (project.folder / "models/classifier").exists()
    assert not list((project.folder / "models").glob(".*.part*"))
