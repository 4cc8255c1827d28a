"""`frostline init`: real projects in real repositories, and nothing left behind where it refuses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageDraw

from frostline.commands import doctor, init
from frostline.errors import DataError, UserError
from frostline.params import schema
from frostline.params.schema import load


def git(*arguments, cwd):
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # another test of the process may have left it
    return tmp_path


def make_images(folder, per_class=60, size=(120, 90), are_drawn=False):
    """Two classes of noise, which is as little flat as a photo, or of pen strokes."""
    rng = np.random.default_rng(0)
    for label in ("ant", "bee"):
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            if are_drawn:
                image = Image.new("RGB", size, "white")
                ImageDraw.Draw(image).line([tuple(rng.integers(0, 90, 2).tolist()) for _ in range(3)], (0, 0, 0), 3)
            else:
                image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
            image.save(folder / label / f"{number}.png")
    return folder


def run(folder, data=None, recipe=None, body=None):
    return init.run(Path(folder), None if data is None else Path(data), recipe, body)


def test_a_project_is_whole_valid_and_staged(here, monkeypatch):
    make_images(here / "photos")
    said = run("shop", "photos")
    params = load(here / "shop" / "params.yaml")
    assert "looked at 120 images of 2 classes, at least 60 a class; 120x90 pixels, photos" in said
    assert "chosen    recipe photos, EfficientNetLite0 (imagenet), image_size 160" in said
    assert (params.data.source, params.registry.name) == (str(here / "photos"), "shop")
    assert params.finetune == load(ROOT / "recipes/photos.yaml").finetune
    status = git("status", "--porcelain", "--untracked-files=all", cwd=here / "shop").splitlines()
    assert status
    assert all(line.startswith("A  ") for line in status)
    lock = (here / "shop" / "requirements.lock").read_text()
    assert "\nfrostline==" in lock
    assert "\ntensorflow==" in lock
    assert not list(here.glob(".*"))
    monkeypatch.chdir(here / "shop")
    assert "EfficientNetLite0 (imagenet)" in doctor.check(params)


@pytest.mark.parametrize(
    ("options", "kind", "body", "size"),
    [
        ({"are_drawn": True}, "drawings, letters or digits", "frostnet", 64),
        ({"size": (32, 32)}, "photos", "EfficientNetLite0", 96),
        ({"size": (12, 12)}, "photos", "frostnet", 64),
        ({"per_class": 20}, "photos", "EfficientNetLite0", 160),
    ],
    ids=str,
)
def test_the_choice_follows_the_images(here, options, kind, body, size):
    make_images(here / "images", **options)
    said = run("shop", "images")
    params = load(here / "shop" / "params.yaml")
    assert kind in said
    assert (params.backbone.name, params.data.image_size) == (body, size)
    assert (params.finetune.epochs == 0) == ("per_class" in options)  # few images: the head alone


def test_another_body_gets_its_weights_and_a_line_at_the_same_depth(here):
    make_images(here / "images")
    said = run("shop", "images", body="InceptionV3")
    params = load(here / "shop" / "params.yaml")
    assert (params.backbone.name, params.backbone.weights) == ("InceptionV3", "imagenet")
    assert isinstance(params.finetune.freeze, int)
    assert 150 < params.finetune.freeze < 311
    assert "InceptionV3 (imagenet)" in said


def test_without_data_it_begins_with_digits(here):
    said = run("shop")
    assert load(here / "shop" / "params.yaml").data == load(ROOT / "params.yaml").data
    assert (here / "shop" / "data" / "digits.yaml").is_file()
    assert "no --data, so scikit-learn's digits" in said


def test_data_inside_the_project_is_named_relative_to_it(here, monkeypatch):
    make_images(here / "shop" / "data" / "photos")
    monkeypatch.chdir(here / "shop")
    said = run(".", "data/photos")
    assert load(here / "shop" / "params.yaml").data.source == "data/photos"
    assert "dvc add data/photos && git add data/photos.dvc data/.gitignore   #" in said
    assert (here / "shop" / ".git").is_dir()


def test_a_subfolder_of_a_repository_stays_in_it(here):
    git("init", "-q", cwd=here)
    (here / "README.md").write_text("a monorepo")
    said = run("teams/shop")
    assert not (here / "teams/shop/.git").exists()
    assert "teams/shop/params.yaml" in git("diff", "--cached", "--name-only", cwd=here)
    assert "README.md" not in git("diff", "--cached", "--name-only", cwd=here).splitlines()
    assert "move or include them" in said


@pytest.mark.process
def test_dvc_takes_a_subfolder_of_a_repository_for_a_project(here):
    git("init", "-q", cwd=here)
    run("teams/shop")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status"], cwd=here / "teams/shop", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "prepare" in done.stdout


def test_a_repository_with_other_files_is_filled(here):
    git("init", "-q", cwd=here)
    (here / "LICENSE").write_text("mine")
    (here / "src").mkdir()
    (here / "src" / "old.py").write_text("pass")
    run(".")
    assert (here / "src" / "old.py").read_text() == "pass"
    assert (here / "params.yaml").is_file()
    assert not list(here.glob(".init*"))


def test_a_recipe_for_two_classes_is_refused_for_more(here):
    make_images(here / "images", per_class=3)
    shutil.copytree(here / "images" / "ant", here / "images" / "cat")
    with pytest.raises(UserError, match="--recipe: vgg16-dogs-vs-cats is for two classes, and --data has more"):
        run("shop", "images", recipe="vgg16-dogs-vs-cats")
    shutil.rmtree(here / "images" / "cat")
    assert "VGG16 (imagenet)" in run("shop", "images", recipe="vgg16-dogs-vs-cats")


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": "full"}, r"full/README\.md: exists, and nothing is overwritten; give a new folder"),
        ({"folder": "file"}, "file: is a file; give the name of a new folder"),
        ({"data": "nowhere"}, "nowhere: not found; set --data"),
        ({"data": "empty"}, "empty: has no subfolders"),
        ({"recipe": "photo"}, "--recipe: photo is not known; did you mean photos"),
        ({"body": "Resnet50"}, "--body: Resnet50 is not known; did you mean ResNet50"),
        ({"recipe": "inceptionv3-last15", "body": "frostnet", "data": "file"}, "file: --data must be a folder"),
    ],
    ids=str,
)
def test_a_refusal_is_one_line_and_leaves_nothing_behind(here, options, message):
    (here / "full").mkdir()
    (here / "full" / "README.md").write_text("mine")
    (here / "file").touch()
    (here / "empty").mkdir()
    before = snapshot(here)
    with pytest.raises(UserError, match=message) as refusal:
        run(**{"folder": "shop", **options})
    assert "\n" not in str(refusal.value)
    assert snapshot(here) == before
    assert not (here / "shop").exists()


def test_a_fault_on_the_way_leaves_an_existing_folder_as_it_was(here, monkeypatch):
    (here / "shop" / "src").mkdir(parents=True)
    (here / "shop" / "src" / "old.py").touch()
    before = snapshot(here)
    rename, count = Path.rename, [0]

    def failing(path, target):
        count[0] += 1
        if count[0] == 5:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        run("shop")
    assert snapshot(here) == before
    assert [path.name for path in (here / "shop").iterdir()] == ["src"]


def test_without_git_one_line_says_so(here, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(UserError, match="git: not found; install it"):
        run("shop")


def test_a_folder_that_git_ignores_is_refused(here):
    git("init", "-q", cwd=here)
    (here / ".gitignore").write_text("/shop/\n")
    with pytest.raises(UserError, match=r"is ignored by git \(\.gitignore:1:/shop/\)"):
        run("shop")


def test_letters_beyond_ascii_are_warned_of(here):
    said = run("größe 1")
    assert "has letters beyond ASCII, where `dvc exp run --temp` and `--queue` fail" in said
    assert load(here / "größe 1" / "params.yaml").registry.name == "groe-1"
    assert "cd 'größe 1'" in said
    assert "warning" not in run("with space")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, to be another user")
@pytest.mark.process
def test_images_of_another_users_are_one_line(here):
    make_images(here / "images", per_class=1).chmod(0o700)
    (here / "home").mkdir(mode=0o777)
    os.chown(here / "home", 65534, 65534)
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", "frostline", "init"]
    for folder in (here, *here.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    done = subprocess.run([*command, "home/shop", "--data", str(here / "images")], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "can't be read (Permission denied); fix its permissions" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (here / "home" / "shop").exists()


@pytest.mark.process
def test_the_installed_wheel_is_enough(here):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", "wheels", str(ROOT)], check=True)
    (wheel,) = (here / "wheels").glob("*.whl")
    assert wheel.stat().st_size < 6e6
    subprocess.run([*pip, "install", "--no-deps", "--target", "site", str(wheel)], check=True)
    env = {**os.environ, "PYTHONPATH": str(here / "site")}
    done = subprocess.run([sys.executable, "-m", "frostline", "init", "shop"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "its wheel is in wheels/" in done.stdout
    assert (here / "shop" / "wheels" / wheel.name).read_bytes() == wheel.read_bytes()
    (here / "shop").rename(here / "shop_of_the_wheel")
    run("shop")
    ours, theirs = (snapshot(here / name) for name in ("shop", "shop_of_the_wheel"))
    names = {path.relative_to(here / "shop") for path in ours if ".git" not in path.relative_to(here / "shop").parts}
    assert len(names) == 21
    for name in names - {Path("requirements.lock")}:  # that of the wheel has its digest
        assert theirs[here / "shop_of_the_wheel" / name] == ours[here / "shop" / name], name


@pytest.mark.slow
def test_dvc_still_has_the_fault_that_is_warned_of(here):
    run("größe")
    (here / "größe" / "dvc.yaml").write_text(
        "stages:\n  one:\n    cmd: touch out\n    params: [seed]\n    outs: [out]\n"
    )
    for command in ("git add -A", "git -c user.name=t -c user.email=t@example.org commit -qm begin"):
        subprocess.run(command.split(), cwd="größe", check=True)
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "-S", "seed=8"]
    done = subprocess.run(command, cwd="größe", capture_output=True, text=True)
    assert done.returncode != 0
    assert "'ascii' codec can't encode" in done.stderr


def test_a_heavy_library_is_not_loaded(here):
    heavy = ["tensorflow", "keras", "mlflow", "sklearn", "optuna", "matplotlib", "dvc"]
    code = "import sys; sys.argv = ['frostline', 'init', 'shop']\nimport frostline.cli\ntry: frostline.cli.main()\n"
    code += f"finally: print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_a_source_without_readable_permissions_is_one_line(here, monkeypatch):
    make_images(here / "images", per_class=1)
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("images"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"images: can't be read \(Permission denied\)"):
        run("shop", "images")


def test_what_it_writes_is_what_its_own_loader_takes(here):
    for name in ("vgg19-block2-features", "large-different"):
        run(name, recipe=name)
        assert schema.load(here / name / "params.yaml").head == load(ROOT / "recipes" / f"{name}.yaml").head
