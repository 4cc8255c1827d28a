"""The JSON Schema of params.yaml, by which editors complete and check it.

The file lies beside this module, and `python -m frostline.project.json_schema` writes it anew. It is made from the
typed schema, and from the repository's params.yaml, whose comments and values become descriptions and defaults. What
concerns several keys at once only frostline itself checks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from frostline.core import plain_yaml
from frostline.params.schedules import NamedSchedule
from frostline.params.schema import Params
from frostline.project import layout

FILE = Path(__file__).with_name("params.schema.json")
MODELINE = "# yaml-language-server: $schema="  # how the first line of a YAML file names its schema

Schema = dict[str, Any]


def text(params: Path) -> str:
    """The content of FILE. params: a complete params.yaml with comments."""
    schema = _without_titles(Params.model_json_schema())
    schema["$defs"]["FinetuneSection"]["properties"]["schedule"] = _schedule()
    _explain(schema, schema, plain_yaml.read(params), params.read_text(encoding="utf-8"), "")
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "params.yaml of frostline"}
    return json.dumps(about | schema, indent=1, ensure_ascii=False) + "\n"


def modeline(params: str) -> str:
    """The line of a params.yaml that names its schema to an editor, with its line break; empty without one."""
    first = params.partition("\n")[0]
    return f"{first}\n" if first.startswith(MODELINE) else ""


def _schedule() -> Schema:
    """What the validators of `finetune.schedule` accept: a name alone, or with arguments."""
    names = ["constant", "cosine", *NamedSchedule.model_fields]
    return {"anyOf": [{"enum": names}, {"$ref": "#/$defs/NamedSchedule"}]}


def _without_titles(part: Any) -> Any:
    """The schema without pydantic's titles, which only repeat the names of keys."""
    if isinstance(part, list):
        return [_without_titles(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {
        key: _without_titles(value) for key, value in part.items() if not (key == "title" and isinstance(value, str))
    }


def _explain(schema: Schema, whole: Schema, values: dict[str, Any], comments: str, prefix: str) -> None:
    """Add the description and the default of each key of a section, and of those below it."""
    for name, value in values.items():
        key, property_ = f"{prefix}{name}", schema["properties"][name]
        if said := layout.comment(comments, key):
            property_["description"] = said
        section = property_.get("$ref")
        if section and isinstance(value, dict) and value:
            _explain(whole["$defs"][section.rpartition("/")[2]], whole, value, comments, f"{key}.")
        else:
            property_["default"] = value


if __name__ == "__main__":
    FILE.write_text(text(Path(sys.argv[1] if len(sys.argv) > 1 else "params.yaml")), encoding="utf-8")
