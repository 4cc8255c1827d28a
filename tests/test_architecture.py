"""What holds the project together: dvc.yaml against the import graph, the lock file, the contract of the top level."""

import re

import grimp
import pytest
from conftest import ROOT
from ruamel.yaml import YAML

LOGS = {
    "tracking",
    "contact",
    "runs",
    "run_log",
    "registry",
}  # with all that only they need; the last says where a start lies
LOGS_OR_NAMES = {"params", "training_params", "complaints", "catalog", "errors"}  # what no result depends on either


@pytest.mark.parametrize("stage", ["prepare", "augment", "finetune", "evaluate"])
def test_a_stage_depends_on_the_files_it_imports(stage):
    graph = grimp.build_graph("frostline")
    for name in LOGS | LOGS_OR_NAMES:
        graph.remove_module(f"frostline.{name}")
    module = f"frostline.stages.{stage}"
    names = {name.removeprefix("frostline.") for name in graph.find_upstream_modules(module) | {module}}
    expected = {f"src/frostline/{name.replace('.', '/')}.py" for name in names - LOGS_OR_NAMES}
    deps = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]["deps"]
    assert {dep for dep in deps if dep.endswith(".py")} == expected


def test_the_lock_names_exact_versions_and_no_index():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert len(lines) > 50
    assert all(re.match(r"^[a-z0-9._-]+(\[[a-z,-]+\])?==\S+( ; .*)?$", line) for line in lines)


def test_every_dependency_is_used():
    declared = re.search(r"^dependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.S | re.M)
    names = re.findall(r'"([a-z0-9.-]*[a-z0-9])', declared.group(1))
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    modules = {"pillow": "PIL", "scikit-learn": "sklearn"}
    # dvc runs the stages, pyarrow is pandas' engine for Parquet, optuna is what the search will stand on.
    indirect = {"dvc", "pyarrow", "optuna"}
    unused = [n for n in names if n not in indirect and not re.search(rf"(import|from) {modules.get(n, n)}\b", source)]
    assert unused == []


def test_the_shipped_backbone_is_the_one_that_pretraining_made():
    import hashlib

    lock = YAML(typ="safe").load(ROOT / "pretrain" / "dvc.lock")
    (out,) = lock["stages"]["export"]["outs"]
    shipped = (ROOT / "src" / "frostline" / "frostnet.npz").read_bytes()
    assert out["md5"] == hashlib.md5(shipped).hexdigest()
