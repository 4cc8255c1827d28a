"""Write the pages of docs/reference from the code: `make reference`.

Types, ranges, defaults, options, files and addresses come from the program itself. What the program can't say, such as
the meaning of a metric, stands in the tables below. A key, file or address without a line there is an error, so that
nothing new stays without a description.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from typer.main import get_command

from frostline import exit_codes, paths
from frostline.cli import app as commands
from frostline.evaluation.scores import CI95, Scores
from frostline.project import json_schema, template
from frostline.serving import app as server
from frostline.serving import inputs, payload
from frostline.serving.bounds import MEBIBYTE, Bounds

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
HEADER = "<!-- Written by `make reference`; do not edit. -->\n\n"

READERS = {  # of keys that are no `params` of a stage in dvc.yaml
    "cache.disk_gb": "all commands that compute features",
    "cache.memory_gb": "all commands that compute features",
    "sweep": "`frostline sweep`",
    "tracking": "finetune, evaluate, and all commands that read or write runs and models",
    "registry.name": "`frostline register`, `promote`, `rollback`",
    "registry.gate": "`frostline promote`",
}

ABOUT = {  # of sections of params.yaml
    "data": "The images, and how they are prepared.",
    "augment": "Changed copies of the training images.",
    "backbone": "The pretrained network.",
    "head": "The layers on the backbone.",
    "finetune": "The training: first the head alone, then everything above the freeze line.",
    "cache": "The activation store, which keeps what frozen layers gave.",
    "evaluate": "The measurements on the test split.",
    "sweep": "The search of `frostline sweep`.",
    "tracking": "Where MLflow records runs.",
    "registry": "The registered model, and the gate before a promotion.",
}

SAID = {  # descriptions of keys that have no comment in params.yaml, because their names say it there
    "seed": "seed of splits, variants and training; the same seed gives the same results",
    "augment.height_shift": "share of the side, either way",
    "augment.horizontal_flip": "whether half of the variants are mirrored left to right",
    "augment.vertical_flip": "whether half of the variants are mirrored top to bottom",
    "head.activation": "of the hidden layers",
    "finetune.head_learning_rate": "learning rate of the head's phase",
    "finetune.batch_size": "images of one step",
    "finetune.learning_rate": "learning rate of fine-tuning",
    "finetune.label_smoothing": "share of each label that is spread over all classes",
    "cache.dtype": "number type of stored features; float16 halves the disk",
    "evaluate.top_k": "k of the top-k accuracy",
    "sweep.trials": "number of trials",
    "sweep.seed": "seed of the sampler",
    "tracking.experiment": "name of the experiment in MLflow",
    "registry.gate.metric": "what the gate of `frostline promote` compares",
    "registry.gate.margin": "how much worse than the champion a challenger may be",
    "registry.gate.confidence": "confidence with which it must not be worse than that",
}

METRICS = {
    "accuracy": ("0 to 1", "share of right answers; the interval is Wilson's"),
    "top_k_accuracy": ("0 to 1", "share of images whose class is among the k likeliest; k is `evaluate.top_k`"),
    "macro_f1": ("0 to 1", "mean of the F1 scores of the classes, each with the same weight"),
    "weighted_f1": ("0 to 1", "the same, each class weighted by its number of images"),
    "log_loss": ("0 and more", "mean negative logarithm of the probability of the true class; lower is better"),
    "ece": ("0 to 1", "expected calibration error over 15 bins: mean gap between confidence and accuracy"),
    "n_test": ("1 and more", "number of test images"),
    "commonest_class": ("0 to 1", "accuracy of always answering the commonest class of the test split"),
    "roc_auc": ("0 to 1", "area under the ROC curve, each class against the rest, mean over the classes"),
    "average_precision": ("0 to 1", "average precision, each class against the rest, mean over the classes"),
    "temperature": ("above 0", "only with `evaluate.calibrate: temperature`: what the logits are divided by"),
    "ece_uncalibrated": ("0 to 1", "only with calibration: `ece` without it"),
    "log_loss_uncalibrated": ("0 and more", "only with calibration: `log_loss` without it"),
    "aurc": (
        "0 to 1",
        "area under the risk-coverage curve: mean error of the surest answers, over all numbers of them",
    ),
    "set_promise": ("0 to 1", "only with `evaluate.sets`: `evaluate.sets.coverage` of the training"),
    "set_coverage": (
        "0 to 1",
        "only with `evaluate.sets`: share of images whose set has their class; Wilson's interval",
    ),
    "set_size": ("0 to classes", "only with `evaluate.sets`: classes in a set, on average"),
    "unknown_promise": ("0 to 1", "only with `evaluate.unknown`: `evaluate.unknown.false_alarms` of the training"),
    "unknown_rate": (
        "0 to 1",
        "only with `evaluate.unknown`: share of these images, which all show a class, that is called unknown",
    ),
    "accuracy_known": ("0 to 1", "only with `evaluate.unknown`: accuracy of the other images"),
    "own": ("any number", "for each function of `evaluate.metrics`, with its name instead of NAME"),
    "test_digest": ("text", "digest of the test images; `promote` compares only models with the same one"),
}

WRITTEN = {  # by `frostline init`
    ".dockerignore": "what does not go into an image of Docker",
    ".dvc/.gitignore": "keeps DVC's cache out of git",
    ".dvc/config": "DVC's settings: no analytics; links instead of copies where the file system has them",
    ".dvcignore": "what DVC does not look at",
    ".github/workflows/frostline.yaml": "the workflow for GitHub: train on a pull request, promote by hand",
    ".gitignore": "what git does not keep",
    ".gitlab-ci.yml": "the same for GitLab",
    "Dockerfile": "a container that trains",
    "Dockerfile.serve": "a container that serves `models/classifier`",
    "README.md": "the project's own README; yours from the first day",
    "data/.gitignore": "keeps prepared images out of git",
    "data/digits.yaml": "only without `--data`: the card of the digits",
    "dvc.yaml": "the four stages",
    "models/.gitignore": "keeps the classifier out of git; DVC has it",
    "params.schema.json": "the JSON Schema of `params.yaml`, for editors",
    "params.yaml": "all settings; see [params.yaml](params.md)",
    "pyproject.toml": "the project as a Python package, which needs this version of frostline",
    "reports/.gitignore": "keeps reports out of git, except `metrics.json` and `history.csv`",
    "requirements.lock": "exact versions of all packages; every stage depends on it",
    "src/PACKAGE/__init__.py": "the project's own code",
    "tests/test_params.py": "a test that `params.yaml` is valid",
    "wheels/": "only if frostline was installed from a file: its wheel, for CI and containers",
}

OUTPUTS = {  # of stages and commands
    "data/prepared": ("prepare", "the images, decoded and resized once, in shards, by split"),
    "reports/data.json": ("prepare", "counts, and the first 1,000 problems of each kind and sets of near-copies"),
    "reports/problems.parquet": ("prepare", "every file that was left out: path, label, kind and reason"),
    "reports/near_copies.parquet": ("prepare", "every set of near-copies: set and path"),
    "data/augmented": ("augment", "the stored variants of the training split"),
    "reports/augment.png": ("augment", "a sheet of variants, to be looked at"),
    "models/classifier": ("finetune", "the trained classifier: `model.keras` and `bundle.json`"),
    "reports/history.csv": (
        "finetune",
        "a row for each epoch: phase, learning rate, losses, accuracies; a last row of a soup",
    ),
    "reports/predictions.parquet": ("evaluate", "label and probabilities of each test image"),
    "reports/per_class.csv": ("evaluate", "precision, recall, F1 and number of images of each class"),
    "reports/model_card.md": ("evaluate", "the model card; see [how to read it](../how-to/read-the-model-card.md)"),
    "reports/confusion.csv": ("evaluate", "actual and predicted class of each test image, for DVC's plot"),
    "reports/plots": ("evaluate", "learning curves, confusion, ROC, precision-recall, reliability, worst mistakes"),
    "reports/metrics.json": ("evaluate", "the metrics; see [metrics.json](metrics.md)"),
}

STATE = {
    "dvc.lock": "DVC's record of what each stage read and wrote; commit it",
    "reports/sweep/": "`frostline sweep`: `trials.csv`, `best_params.yaml`, plots",
    "reports/lr_find/": "`frostline lr-find`: `losses.png` and the numbers behind it",
    "mlflow.db": "MLflow's database, with `tracking.uri: auto`",
    "mlartifacts/": "files of the runs in `mlflow.db`",
    ".frostline/features/": "the activation store; FROSTLINE_CACHE names another folder, which projects can share",
    ".frostline/checkpoints/": "trainings that are not finished, to go on with",
    ".frostline/sweeps/": "paused trials, weights for a soup, and what workers tell each other",
    ".frostline/optuna.db": "the study, with `sweep.storage: auto`",
    ".frostline/outbox/": "records that wait for an MLflow server that is away",
    ".frostline/models/": "registered models that were fetched from another machine",
    ".dvc/cache/": "DVC's cache of all outputs",
}

VARIABLES = {
    "FROSTLINE_CACHE": "folder of the activation store, so that projects can share one",
    "FROSTLINE_RAY": "address of a Ray cluster, for every command that has `--ray`",
    "KERAS_BACKEND": "`tensorflow` (the default) or `jax`",
    "MLFLOW_TRACKING_URI": "goes before `tracking.uri`",
    "MLFLOW_TRACKING_USERNAME": "with `MLFLOW_TRACKING_PASSWORD`: the user, for a server with users",
    "MLFLOW_EXPERIMENT_NAME": "goes before `tracking.experiment`",
    inputs.ALLOW_PATHS: "`1`: a registered model under another server may read files that requests name",
    inputs.MAX_MEGAPIXELS: f"limit of one image for a registered model under another server; {inputs.MEGAPIXELS:g}",
    "any name as `${NAME}`": "in `tracking.uri` and `sweep.storage`: its value is put in where it is needed",
}

ADDRESSES = {
    "GET /": "a web page: drop images on it, see labels, probabilities and the heat map",
    "GET /about": "JSON: the model that answers, the digest of its bundle, its classes, and how images are resized",
    "GET /ping": "200 if the network answers within {health:g} seconds, else 503; the same as MLflow's",
    "GET /health": "200: the process lives",
    "GET /ready": "200 if requests should be sent here; 503 if the server is stopping, or its network does not answer",
    "GET /metrics": "what the server counts, in the format of Prometheus",
    "GET /version": "the version of MLflow whose addresses these are",
    "POST /invocations": "predictions of one or more images",
    "POST /explain": "the body is the bytes of one image; the answer is a PNG with the heat map of its label",
    "POST /neighbours": "the body is the bytes of one image; the answer is JSON with the nearest training images, if "
    "the server has and shows them",
    "POST /feedback?label=NAME": "the body is the bytes of one image, which is kept with what a person says it is; "
    "only with `--feedback`",
}

STATUSES = {
    "400": "an input is no image, or the body is no table",
    "403": "the request comes from a page of another site",
    "404, 405": "there is no such address, or not for this method",
    "408, 504": "the body, or the answer, took too long",
    "413": "the body is too large",
    "415": "the header Content-Type names a kind of body that is not read",
    "421": "the header Host names another server",
    "429": "more requests at a time than allowed; the header Retry-After says after how many seconds to try again",
    "500": "a fault of the server; its log says more",
    "503": "the server is stopping, is short of memory, or its network does not answer; with Retry-After",
}


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text of each page, by its file name."""
    made = {"params.md": params(), "cli.md": cli(), "files.md": files(), "metrics.md": metrics(), "http.md": http()}
    return {name: HEADER + text for name, text in made.items()}


def params() -> str:
    """Every key of params.yaml."""
    schema = json.loads(json_schema.text(ROOT / paths.PARAMS))
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    parts = [
        "# params.yaml\n\nEvery key is checked: an unknown key, a missing one or a value of the wrong type "
        "is refused in one "
        "line. A key that is null by default may be left out. Values are those of the template, which is also the "
        "[`params.yaml`](../../params.yaml) of this repository; "
        "[recipes](../how-to/choose-a-body.md#recipes) have others. "
        '"Read by" names the stages that run again when the value changes. All keys are there since version '
        "0.1.0, unless "
        "their description says otherwise.\n",
        _table(schema, {"seed": schema["properties"]["seed"]}, "", stages),
    ]
    for name in schema["properties"]:
        if name != "seed":
            section = schema["$defs"][schema["properties"][name]["$ref"].rpartition("/")[2]]
            parts.append(f"## {name}\n\n{ABOUT[name]}\n")
            parts.append(_table(schema, section["properties"], f"{name}.", stages))
    parts.append("## Values with keys of their own\n")
    for title, definition in _nested(schema):
        rows = [
            [f"`{key}`", _type(each, schema), _value(each)] for key, each in definition.get("properties", {}).items()
        ]
        if rows:
            parts.append(f"### {title}\n\n{_markdown(('key', 'type and range', 'if left out'), rows)}")
    return "\n".join(parts)


def _table(schema: dict[str, Any], keys: dict[str, Any], prefix: str, stages: dict[str, Any]) -> str:
    rows = []
    for name, each in keys.items():
        key = f"{prefix}{name}"
        if "$ref" in each and key == "registry.gate":
            for inner, value in schema["$defs"]["GateSection"]["properties"].items():
                rows.append(_row(schema, f"{key}.{inner}", value, stages))
        else:
            rows.append(_row(schema, key, each, stages))
    return _markdown(("key", "type and range", "in the template", "read by", "meaning"), rows)


def _row(schema: dict[str, Any], key: str, each: dict[str, Any], stages: dict[str, Any]) -> list[str]:
    said = SAID.get(key) or each.get("description")
    if not said:
        raise SystemExit(f"make_reference.py: {key} has no description; add a comment in params.yaml or a line to SAID")
    value = f"`{_yaml(each['default'])}`" if "default" in each else ""
    return [f"`{key}`", _type(each, schema), value, _readers(key, stages), _escaped(said)]


def _readers(key: str, stages: dict[str, Any]) -> str:
    def reads(declared: str) -> bool:
        return f"{key}.".startswith(f"{declared}.")

    named = [name for name, stage in stages.items() if any(map(reads, stage["params"]))]
    others = [reader for declared, reader in READERS.items() if reads(declared)]
    if not named and not others:
        raise SystemExit(f"make_reference.py: nobody reads {key}; add it to READERS")
    return ", ".join(named + others)


def _type(each: dict[str, Any], schema: dict[str, Any]) -> str:
    """A JSON Schema in words."""
    if "$ref" in each:
        name = each["$ref"].rpartition("/")[2]
        has_keys = schema["$defs"][name].get("properties")
        return f"[{_title(name)}](#{_title(name).lower()})" if has_keys else "`{}`"
    if "enum" in each:
        return ", ".join(f"`{_yaml(value)}`" for value in each["enum"])
    if "const" in each:
        return f"`{each['const']}`"
    if "anyOf" in each:
        return " or ".join(dict.fromkeys(_type(part, schema) for part in each["anyOf"]))
    kind = each.get("type", "any value")
    if kind == "array":
        if "prefixItems" in each:
            return "[" + ", ".join(_type(part, schema) for part in each["prefixItems"]) + "]"
        return f"list of: {_type(each['items'], schema)}"
    if kind == "object" and isinstance(each.get("additionalProperties"), dict):
        return f"mapping to: {_type(each['additionalProperties'], schema)}"
    words = {"integer": "whole number", "string": "text", "boolean": "`true`, `false`", "null": "`null`"}
    return f"{words.get(kind, kind)}{_range(each)}"


def _range(each: dict[str, Any]) -> str:
    said = [
        f"{sign} {each[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in each
    ]
    return f" {' and '.join(said)}" if said else ""


def _nested(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    sections = {f"{name.title()}Section" for name in ABOUT} | {"GateSection"}
    return [(_title(name), each) for name, each in schema["$defs"].items() if name not in sections]


def _title(name: str) -> str:
    names = {
        "SplitSection": "Shares", "Flat": "Constant", "Cosine": "CosineDecay", "CosineRestarts": "CosineDecayRestarts",
        "Exponential": "ExponentialDecay", "InverseTime": "InverseTimeDecay", "Polynomial": "PolynomialDecay",
        "Piecewise": "PiecewiseConstantDecay",
    }  # fmt: skip
    return names.get(name, name.lstrip("_"))


def _value(each: dict[str, Any]) -> str:
    return f"`{_yaml(each['default'])}`" if "default" in each else "must be given"


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) and (value >= 1e-3 or value == 0):
        return str(value)
    if isinstance(value, float):
        digits, power = f"{value:.1e}".split("e")
        return f"{digits}e{int(power)}"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    return str(value)


def cli() -> str:
    """Every command and option."""
    group: Any = get_command(commands)
    context = group.make_context("frostline", [], resilient_parsing=True)
    parts = [
        "# Commands\n\nRun them in the folder of a project, which has `params.yaml`. `frostline COMMAND --help` prints "
        f"the same. A mistake of the user's is one line and exit code {exit_codes.USER}; a fault of frostline's is "
        f"exit code {exit_codes.OURS}; an interruption is {exit_codes.INTERRUPTED}.\n",
        "`frostline --install-completion` makes your shell complete commands and options.\n",
        "## frostline\n\n" + _options(group, context),
    ]
    for name in sorted(group.commands):
        command = group.commands[name]
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        table = _options(command, inner)
        usage = [f"frostline {name}", *(["[OPTIONS]"] if "`--" in table else []), *_arguments(command)]
        parts.append(f"## {name}\n\n{command.help}\n\n    {' '.join(usage)}\n")
        if table:
            parts.append(table)
    return "\n".join(parts)


def _arguments(command: Any) -> list[str]:
    named = [(each.metavar or each.name.upper(), each.required) for each in command.params if each.opts[0][0] != "-"]
    return [name if required or name.startswith("[") else f"[{name}]" for name, required in named]


def _options(command: Any, context: Any) -> str:
    rows = []
    for each in command.get_params(context):
        if each.name in ("help", "install_completion", "show_completion"):
            continue
        names = each.metavar or each.name.upper() if each.param_type_name == "argument" else ", ".join(each.opts)
        is_flag = getattr(each, "is_flag", False)
        if each.param_type_name == "option" and not is_flag:
            names += f" {each.metavar or each.display_type(context).replace(' range', '')}"
        default = each.default if each.default not in (None, False) and not callable(each.default) else None
        value = "required" if each.required else "" if is_flag or default is None else f"`{default}`"
        rows.append([f"`{_escaped(names)}`", value, _escaped(getattr(each, "help", "") or "")])
    return _markdown(("argument or option", "default", "meaning"), rows) if rows else ""


def files() -> str:
    """The files of a project."""
    facts = template.ProjectFacts("name", ".", "3.11", "frostline==0")
    package = f"src/{facts.package}/"
    made = {str(path).replace(package, "src/PACKAGE/") for path in template.files(facts)}
    made |= {str(paths.PARAMS), str(paths.REQUIREMENTS), f"{paths.WHEELS}/"}
    _require_same(made, set(WRITTEN), "WRITTEN")
    current = {str(path) for path in template.KEPT_CURRENT} | {str(paths.REQUIREMENTS)}
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    outs = {
        next(iter(out)) if isinstance(out, dict) else out
        for stage in stages.values()
        for kind in ("outs", "plots", "metrics")
        for out in stage.get(kind, [])
    }
    _require_same(outs, set(OUTPUTS), "OUTPUTS")
    in_git = {"reports/metrics.json", "reports/history.csv"}
    written = [[f"`{name}`", WRITTEN[name], "yes" if name in current else ""] for name in sorted(WRITTEN)]
    outputs = [
        [f"`{name}`", stage, said, "git" if name in in_git else "DVC"] for name, (stage, said) in OUTPUTS.items()
    ]
    state = [[f"`{name}`", said] for name, said in STATE.items()]
    return "\n".join(
        [
            "# Files of a project\n\n## What `frostline init` writes\n\nThe files with a yes are written anew by "
            "`frostline init --update`. `params.yaml` keeps its values there and gets missing keys; all other "
            "files are "
            "yours from the first day.\n",
            _markdown(("file", "what it is", "kept current"), written),
            "## What the stages write\n\n`dvc repro` runs the stages whose inputs changed.\n",
            _markdown(("output", "stage", "what it is", "kept by"), outputs),
            "## What else appears\n\nNothing here is in git, except `dvc.lock`. Deleting `.frostline/features` "
            "is always "
            "safe: what is needed is computed again.\n",
            _markdown(("file", "what it is"), state),
            "## Environment variables\n",
            _markdown(("variable", "what it does"), [[f"`{name}`", said] for name, said in VARIABLES.items()]),
        ]
    )


def metrics() -> str:
    """The keys of metrics.json."""
    _require_same({field.name for field in fields(Scores)} - {"top_k"}, set(METRICS), "METRICS")
    example = json.loads((ROOT / paths.METRICS).read_text(encoding="utf-8"))
    k = next(key for key in example if key.startswith("top_"))
    rows = []
    for name, (span, said) in METRICS.items():
        key = {"top_k_accuracy": k, "own": "own_NAME"}.get(name, name)
        rows.append([f"`{key}`", span, f"`{json.dumps(example[key])}`" if key in example else "", said])
        if f"{name}{CI95}" in example:
            rows.append([f"`{name}{CI95}`", "[low, high]", f"`{json.dumps(example[name + CI95])}`", "95% interval"])
    return (
        "# metrics.json\n\n`evaluate` writes `reports/metrics.json`, measured on the test split, which training never "
        "reads. `frostline report --json` prints it, and `dvc metrics diff` compares it with a commit. Numbers have "
        "four significant digits. [Intervals and the gate](../explanation/intervals-and-gate.md) says how "
        "the intervals "
        "are computed. The values are those of the digits in this repository. `roc_auc` and "
        "`average_precision` are left "
        "out where no class can be ranked, and their intervals where every image is ranked right.\n\n"
        + _markdown(("key", "range", "on the digits", "meaning"), rows)
    )


def http() -> str:
    """The addresses of `frostline serve`."""
    bounds = Bounds()
    known = {f"{method} {address}" for address, (method, _) in server.ROUTES.items()}
    _require_same(known, {name.partition("?")[0] for name in ADDRESSES}, "ADDRESSES")
    addresses = [[f"`{name}`", said.format(health=bounds.health_seconds)] for name, said in ADDRESSES.items()]
    bodies = [
        [f"`{payload.IMAGE}*`", "the bytes of one image", "`--data-binary @photo.jpg -H 'Content-Type: image/jpeg'`"],
        [f"`{payload.FORM}`", "a form with one or more files", "`-F file=@photo.jpg`"],
        [
            f"`{payload.JSON}`",
            "MLflow's forms `dataframe_split`, `dataframe_records`, `inputs`, `instances`",
            "see below",
        ],
        [f"`{payload.CSV}`", "a table with a header", ""],
    ]
    columns = {
        "image": "the bytes of an image in base64",
        "path": "the name of a file on the server; only with `--allow-paths`",
        "pixels": "whole numbers from 0 to 255 as nested lists, height x width x 3",
    }
    _require_same(set(inputs.COLUMNS), set(columns), "columns")
    limits = [
        ["rows of one request", f"{inputs.ROWS:,}", "400"],
        ["size of one image", f"{inputs.MEGAPIXELS:g} megapixels; `--max-megapixels` changes it", "400"],
        ["bytes of one body", f"{bounds.body // MEBIBYTE} MiB; `--max-body` changes it", "413"],
        ["bytes of all bodies at a time", f"{bounds.bodies // MEBIBYTE} MiB", "503"],
        ["requests with a body at a time", f"{bounds.requests}; `--max-requests` changes it", "429"],
        ["time for a body, and again for its answer", f"{bounds.seconds:g} s; `--max-seconds` changes it", "408, 504"],
    ]
    return "\n".join(
        [
            "# HTTP API\n\n`frostline serve` answers at the addresses of MLflow's own scoring server, so clients "
            "of that "
            "server work, and has a page for people at `/`. It has no users and no encryption; see "
            "[SECURITY.md](../../SECURITY.md). [How to serve](../how-to/promote-and-serve.md) shows it at work.\n",
            _markdown(("address", "answer"), addresses),
            "## Bodies of `/invocations`\n",
            _markdown(("Content-Type", "body", "with curl"), bodies),
            "A table has exactly one of these columns; other columns are ignored.\n",
            _markdown(("column", "cell"), [[f"`{name}`", said] for name, said in columns.items()]),
            '```json\n{"dataframe_records": [{"image": "/9j/4AAQSkZJRgABAQ..."}]}\n```\n',
            "## Answers\n\nPredictions come in the order of the images:\n",
            '```json\n{"predictions": [{"label": "dress", "probability": 0.93, "probabilities": {"dress": 0.93, '
            '"skirt": 0.07}}]}\n```\n',
            "A refusal is JSON too, with its reason and a status of HTTP:\n",
            _markdown(("status", "reason"), [[status, said] for status, said in STATUSES.items()]),
            '```json\n{"error_code": "INVALID_PARAMETER_VALUE", "message": "row 0, image: is not base64"}\n```\n',
            "## Limits\n",
            _markdown(("limit", "value", "status if it is passed"), limits),
            "On a loopback address the header `Host` must be a name of this machine or one that `--allow-host` "
            "names: a hostile web page in a browser on this machine gets no answer. A browser also says in the header "
            "`Origin` which site's page sends a request: pages of other sites than the server's own are refused "
            "unless `--allow-host` names them. Behind a proxy that gives the server another `Host` than the browser "
            "sent, name the site by `--allow-host`. Programs send no `Origin`.\n",
        ]
    )


def _require_same(found: set[str], described: set[str], table: str) -> None:
    if found != described:
        raise SystemExit(
            f"make_reference.py: {table} lacks {sorted(found - described)} and has too much: "
            f"{sorted(described - found)}"
        )


def _markdown(header: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _escaped(text: str) -> str:
    """Text for a cell. Braces become code, since a site generator may take them for attributes."""
    parts = text.replace("|", "\\|").split("`")  # every second part is code already
    parts[::2] = [re.sub(r"\{(?:[^{}]|\{[^{}]*\})*\}", r"`\g<0>`", part) for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    sys.exit(main())
