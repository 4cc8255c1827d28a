"""The template of a project and this repository are of one source, and its schema is that of the settings."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML
from typer.main import get_command

from frostline.cli import app
from frostline.params.schema import Params
from frostline.project import json_schema, settings, template

FACTS = template.ProjectFacts("my-shop", "teams/shop", "3.12", "frostline[imagenet]==1.2.3")


def test_what_the_repository_has_is_linked_and_not_copied():
    links = {path for path in template.FOLDER.rglob("*") if path.is_symlink()}
    assert all(path.resolve().is_relative_to(ROOT) and path.exists() for path in links)
    assert template.PARAMS.resolve() == ROOT / "params.yaml"
    assert template.PIPELINE.resolve() == ROOT / "dvc.yaml"
    assert template.RECIPES.resolve() == ROOT / "recipes"
    assert {template.PARAMS, template.PIPELINE, template.RECIPES} <= links
    assert len(links) == 10


def test_the_pipeline_is_the_repositorys_without_our_sources():
    ours = YAML(typ="safe").load(ROOT / "dvc.yaml")
    theirs = YAML(typ="safe").load(template.pipeline())
    for name, stage in ours["stages"].items():
        stage["deps"] = [path for path in stage["deps"] if not path.startswith("src/")]
        if name != "prepare":  # the others may run functions of the project
            stage["deps"].insert(-1, "src")
    assert theirs == ours
    assert all("requirements.lock" in stage["deps"] for stage in theirs["stages"].values())
    assert "src/" not in template.pipeline()


def test_every_fact_is_filled_in():
    texts = template.files(FACTS)
    assert not [path for path, text in texts.items() if re.search(r"@[A-Z]+@(?!champion)", text)]
    names = {str(path) for path in texts}
    assert {"src/my_shop/__init__.py", ".gitignore", ".dvc/config", "pyproject.toml", "dvc.yaml"} <= names
    assert not [name for name in names if "dot_" in name or name.endswith((".txt", ".pyc"))]
    assert set(template.KEPT_CURRENT) <= set(texts)


@pytest.mark.parametrize("recipe", [None, "photos", "small-similar"])
def test_params_of_a_project_have_every_key_and_its_comment(recipe):
    text = settings.text(recipe)
    template_keys = set(re.findall(r"^ *\w+:", template.PARAMS.read_text(), re.M))
    assert template_keys <= set(re.findall(r"^ *\w+:", text, re.M))
    assert text.startswith("# yaml-language-server: $schema=params.schema.json\n")
    assert "# folders that are splits, if their names do not say it" in text
    Params.model_validate(YAML(typ="safe", pure=True).load(text))


def test_the_schema_file_is_current():
    assert json_schema.FILE.read_text(encoding="utf-8") == json_schema.text(ROOT / "params.yaml")
    assert (ROOT / "params.yaml").read_text().startswith(f"{json_schema.MODELINE}src/frostline/project/")


def test_the_schema_explains_each_key_and_refuses_others():
    schema = json.loads(json_schema.FILE.read_text(encoding="utf-8"))
    data = schema["$defs"]["DataSection"]
    assert data["additionalProperties"] is False
    assert "image_size" in data["required"]
    size = data["properties"]["image_size"]
    assert size == {
        "maximum": 2048,
        "minimum": 8,
        "type": "integer",
        "description": "side in pixels; images are made square",
        "default": 64,
    }
    assert set(schema["required"]) == set(Params.model_fields)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.serve"])
def test_a_container_has_its_own_user_and_a_health_check(name):
    text = template.files(FACTS)[Path(name)]
    assert "FROM python:3.12-slim\n" in text
    assert text.index("\nUSER 1000\n") < text.index("\nHEALTHCHECK ") < text.index("\nCMD [")
    routes = (ROOT / "src/frostline/serving/app.py").read_text()
    assert all(f'"/{path}"' in routes for path in re.findall(r"127\.0\.0\.1:8000/(\w+)'", text))


@pytest.mark.process
def test_the_folder_of_dvc_is_what_dvc_itself_would_make(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    texts = {str(path): text for path, text in template.files(FACTS).items()}
    assert (tmp_path / ".dvc" / ".gitignore").read_text() == texts[".dvc/.gitignore"]
    assert {path.name for path in (tmp_path / ".dvc").iterdir()} == {".gitignore", "config", "tmp"}


def test_the_readme_names_commands_and_files_that_exist():
    texts = template.files(FACTS)
    readme = texts[Path("README.md")]
    assert set(re.findall(r"\bfrostline ([a-z-]+)", readme)) - {"init"} <= set(get_command(app).commands)
    assert "models:/my-shop@champion" in readme
    assert len(readme.split()) < 350
    made = {"reports/", "models/classifier/", "params.yaml", "requirements.lock"}  # by stages, or with the settings
    named = {name for row in re.findall(r"^\| (`.*?) \|", readme, re.M) for name in re.findall(r"`(.*?)`", row)}
    assert [name for name in named - made if not any(str(path).startswith(name) for path in texts)] == []
