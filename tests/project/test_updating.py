"""`frostline init --update`: older projects get this version's files and keys, as a change in git to be read."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from frostline.commands import init
from frostline.errors import ParamsError, UserError
from frostline.params.schema import load
from frostline.project import completing, requirements, updating


def git(*arguments):
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A committed project; the working directory is its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@example.org")
    init.run(Path("shop"), None, "photos", None)
    monkeypatch.chdir(tmp_path / "shop")
    git("commit", "-qm", "begin")
    return tmp_path / "shop"


def change(path, before, after):
    text = Path(path).read_text()
    assert before in text
    Path(path).write_text(text.replace(before, after))


def test_a_project_of_this_version_stays_as_it_is(project):
    assert "shop is up to date with frostline" in init.update(None, None, None, None)
    assert git("status", "--porcelain") == ""


def test_an_older_project_gets_what_it_lacks(project):
    change("params.yaml", "  ema_momentum: 0.99 ", "  # my own words\n  ema_momentum: 0.5 ")
    line = next(line for line in Path("params.yaml").read_text().splitlines() if "label_smoothing" in line)
    change("params.yaml", f"{line}\n", "")
    change("pyproject.toml", "frostline[imagenet]==", "frostline[imagenet]==0.0.")
    change("dvc.yaml", "      - requirements.lock\n", "")
    Path("params.schema.json").unlink()
    Path("Dockerfile").unlink()
    git("commit", "-qam", "an older one")
    said = init.update(None, None, None, None)
    assert "dvc.yaml, params.schema.json, params.yaml, pyproject.toml changed" in said
    text = Path("params.yaml").read_text()
    assert line in text
    assert "  # my own words\n  ema_momentum: 0.5 " in text
    assert load(Path("params.yaml")).finetune.ema_momentum == 0.5
    assert not Path("Dockerfile").exists()
    assert set(git("diff", "--name-only").splitlines()) == {"dvc.yaml", "params.yaml", "pyproject.toml"}
    assert git("show", "HEAD~1:pyproject.toml") == Path("pyproject.toml").read_text().strip()


def test_renamed_keys_keep_their_values(project):
    change("params.yaml", "  ema_momentum: 0.99 ", "  averaging: 0.5 ")
    change("params.yaml", "    finetune.freeze: {auto: 8}", "    finetune.averaging: [0.0, 0.9]")
    git("commit", "-qam", "an older one")
    updating.update(Path(), {"finetune.averaging": "finetune.ema_momentum"})
    params = load(Path("params.yaml"))
    assert params.finetune.ema_momentum == 0.5
    assert params.sweep.space["finetune.ema_momentum"] == [0.0, 0.9]
    assert "averaging" not in Path("params.yaml").read_text()


def test_uncommitted_changes_are_not_mixed_with_its_own(project):
    change("dvc.yaml", "      - requirements.lock\n", "")
    before = Path("dvc.yaml").read_text()
    with pytest.raises(UserError, match=r"dvc\.yaml: has uncommitted changes"):
        init.update(None, None, None, None)
    assert Path("dvc.yaml").read_text() == before
    git("commit", "-qam", "mine")
    change("README.md", "A classifier", "My classifier")  # it is the project's own, and is not in the way
    assert "dvc.yaml changed" in init.update(None, None, None, None)


def test_what_is_no_project_or_an_option_of_a_new_one_is_refused(project, tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml: not found; name the folder of a project"):
        init.update(tmp_path, None, None, None)
    with pytest.raises(UserError, match="--recipe: is for a new project"):
        init.update(None, None, "photos", None)
    with pytest.raises(UserError, match="DIR: is missing"):
        init.run(None, None, None, None)


def test_keys_come_to_their_place_with_their_comments():
    template = "a: 1  # one\n\nb:\n  c: 2  # two\n        # and more\n  d: 3\n\ne:\n  f: 4\n"
    assert completing.completed("b:\n  d: 5  # mine\n", template) == (
        "a: 1  # one\nb:\n  c: 2  # two\n        # and more\n  d: 5  # mine\n\ne:\n  f: 4\n"
    )
    assert completing.completed(template, template) == template
    with pytest.raises(ParamsError, match=r"can't be completed in place; add by hand b\.c"):
        completing.completed("a: 1\nb: {d: 5}\ne: {f: 1}\n", template)


def test_the_renamed_keys_lead_to_keys_that_exist():
    text = (ROOT / "params.yaml").read_text()
    assert all(f"  {new.rpartition('.')[2]}:" in text for new in completing.RENAMED.values())


def test_the_wheel_of_an_upgrade_takes_the_place_of_the_old_one(project, tmp_path, monkeypatch):
    wheel = tmp_path / "frostline-9.0.0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    Path("wheels").mkdir()
    for name in ("frostline-0.1.0-py3-none-any.whl", "other-1-py3-none-any.whl"):
        Path("wheels", name).touch()
    git("add", "wheels")
    git("commit", "-qm", "wheels")
    origin = requirements.Origin("9.0.0", False, wheel, "0" * 64)
    monkeypatch.setattr(requirements, "origin", lambda: origin)
    assert "git add wheels && git commit -am" in init.update(None, None, None, None)
    assert {path.name for path in Path("wheels").iterdir()} == {wheel.name, "other-1-py3-none-any.whl"}
    assert "frostline[imagenet]==9.0.0" in Path("pyproject.toml").read_text()
    assert f"# sha256 of the wheel of frostline: {'0' * 64}" in Path("requirements.lock").read_text()
