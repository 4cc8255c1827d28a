"""What holds the project together: dvc.yaml against the import graph, the lock file, the contract of the top level."""

import ast
import importlib
import re
import shutil
from collections import defaultdict

import grimp
import pytest
from conftest import ROOT, make_params
from ruamel.yaml import YAML

from frostline.params.section import Section

STAGES = ["prepare", "augment", "finetune", "evaluate"]
PACKAGES = sorted(path.parent.name for path in (ROOT / "src/frostline").glob("*/__init__.py"))
RECORDS = {"tracking", "serving", "errors", "paths"}  # what no result depends on: where things lie, and records of them


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_folders_it_imports(stage):
    graph = grimp.build_graph("frostline")
    for name in RECORDS:
        module = f"frostline.{name}"
        for each in graph.find_descendants(module) | {module}:
            graph.remove_module(each)
    module = f"frostline.stages.{stage}"
    packages = {name.split(".")[1] for name in graph.find_upstream_modules(module) if name.count(".") > 1}
    deps = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]["deps"]
    code = {f"src/frostline/{name}" for name in packages} | {f"src/frostline/stages/{stage}.py", "requirements.lock"}
    assert {dep for dep in deps if dep.startswith(("src/", "requirements"))} == code


def test_a_package_names_what_others_use_of_it():
    graph = grimp.build_graph("frostline")
    used = {package: set() for package in PACKAGES}
    for module in graph.modules:
        if module.count(".") < 2:
            continue
        _, package, name = module.split(".")
        importers = graph.find_modules_that_directly_import(module)
        if any(not each.startswith(f"frostline.{package}.") for each in importers):
            used[package].add(name)
    assert {name: set(importlib.import_module(f"frostline.{name}").__all__) for name in PACKAGES} == used


def test_no_class_has_the_name_of_another():
    places = defaultdict(list)
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign):  # an alias of a type
                names = [
                    each.id
                    for each in node.targets
                    if isinstance(each, ast.Name) and each.id.istitle() and len(each.id) > 1
                ]
            for name in names:
                places[name].append(path.name)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


# Keys that a stage reads and that change nothing in what it makes: where things go, and how large the store may become.
PASSING = ("tracking", "registry", "cache.disk_gb", "cache.memory_gb")
ASIDE = {
    # A name for the record; a check that the backbone takes images of that size, which `prepare` has made.
    "finetune": {"data.source", "data.image_size"},
    # A name for the record; where features come from, which are the same; an experiment to suggest on the terminal.
    "evaluate": {"data.source", "cache.mode", "finetune.freeze"},
}


@pytest.fixture(scope="module")
def keys_read(tmp_path_factory):
    """The keys of params.yaml that each stage reads, dotted; a section's name where it is read as a whole."""
    params = make_params(
        data__train_per_class=3,
        augment__copies=1,
        finetune__head_epochs=1,
        finetune__epochs=1,
        finetune__batch_size=10,
        evaluate__bootstrap=100,
    )
    sections, read = {}, set()

    def enter(section, prefix):
        sections[id(section)] = prefix
        for name in type(section).model_fields:
            if isinstance(value := getattr(section, name), Section):
                enter(value, f"{prefix}{name}.")

    look, dump = Section.__getattribute__, Section.model_dump

    def looked(section, name):
        if name in type(section).model_fields and id(section) in sections:
            if not isinstance(value := look(section, name), Section):
                read.add(f"{sections[id(section)]}{name}")
            return value
        return look(section, name)

    def dumped(section, **options):
        if prefix := sections[id(section)]:  # all settings together are only recorded
            names = options.get("include") or type(section).model_fields.keys() - options.get("exclude", set())
            read.update(f"{prefix}{name}" for name in names)
        return dump(section, **options)

    folder, found = tmp_path_factory.mktemp("stages"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_ROOT", str(folder))
        shutil.copytree(ROOT / "data", "data", ignore=shutil.ignore_patterns("prepared", "augmented"))
        enter(params, "")
        patch.setattr(Section, "__getattribute__", looked)
        patch.setattr(Section, "model_dump", dumped)
        for stage in STAGES:
            read.clear()
            importlib.import_module(f"frostline.stages.{stage}").run(params)
            found[stage] = set(read)
    return found


@pytest.mark.process
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_keys_it_reads(stage, keys_read):
    declared = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]["params"]
    relevant = {key for key in keys_read[stage] - ASIDE.get(stage, set()) if not key.startswith(PASSING)}
    assert [key for key in relevant if not any(key == each or key.startswith(f"{each}.") for each in declared)] == []
    assert [each for each in declared if not any(f"{key}.".startswith(f"{each}.") for key in relevant)] == []


def test_the_lock_names_exact_versions_and_no_index():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert len(lines) > 50
    assert all(re.match(r"^[a-z0-9._-]+(\[[a-z,-]+\])?==\S+( ; .*)?$", line) for line in lines)


def test_every_dependency_is_used():
    declared = re.search(r"^dependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.S | re.M)
    names = re.findall(r'"([a-z0-9.-]*[a-z0-9])', declared.group(1))
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    modules = {"pillow": "PIL", "prometheus-client": "prometheus_client", "scikit-learn": "sklearn"}
    indirect = {"dvc", "pyarrow"}  # dvc runs the stages, pyarrow is pandas' engine for Parquet
    unused = [n for n in names if n not in indirect and not re.search(rf"(import|from) {modules.get(n, n)}\b", source)]
    assert unused == []


def test_the_shipped_backbone_is_the_one_that_pretraining_made():
    import hashlib

    lock = YAML(typ="safe").load(ROOT / "pretrain" / "dvc.lock")
    (out,) = lock["stages"]["export"]["outs"]
    shipped = (ROOT / "src/frostline/models/frostnet.npz").read_bytes()
    assert out["md5"] == hashlib.md5(shipped).hexdigest()
