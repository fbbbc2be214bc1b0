"""The JSON schema of a recipe, for editors: completion and checks while a YAML file is written."""

from __future__ import annotations

import json
from typing import Any

_NUMBER_AS_TEXT = {"type": "string", "pattern": r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"}
_BOOLEAN_AS_TEXT = {"enum": ["true", "false", "True", "False"]}


def json_schema() -> dict[str, Any]:
    """The schema; like a recipe it takes a number that is written as text, and a name that looks like a number."""
    from hf_finetune.recipes.schema import Recipe

    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    for definition in definitions.values():
        _require_kind(definition)
    for definition in (schema, *definitions.values()):
        properties = definition.get("properties", {})
        for name, value in properties.items():
            properties[name] = _lenient(value)
    for owner, name in ((schema, "strategy"), (definitions["Model"], "head")):
        _allow_bare_kind(owner["properties"][name], definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hf_finetune recipe",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def schema_text() -> str:
    """The schema as it is committed beside the shipped recipes."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _require_kind(definition: dict[str, Any]) -> None:
    """What a union tells its sections apart by; `loss.kind` has a default as any other key."""
    if "const" in definition.get("properties", {}).get("kind", {}):
        definition["required"] = ["kind", *definition.get("required", [])]


def _lenient(schema: Any) -> Any:
    """Text beside every number and boolean, numbers beside free text."""
    if isinstance(schema, list):
        return [_lenient(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: value if key in ("default", "enum") else _lenient(value) for key, value in schema.items()}
    kind = schema.get("type")
    if "const" in schema or "enum" in schema:
        return schema
    if kind == "string":
        return {**schema, "type": ["string", "number"]}
    if kind in ("number", "integer", "boolean"):
        outside = {key: schema.pop(key) for key in ("title", "description", "default") if key in schema}
        return {**outside, "anyOf": [schema, _BOOLEAN_AS_TEXT if kind == "boolean" else _NUMBER_AS_TEXT]}
    return schema


def _allow_bare_kind(union: dict[str, Any], definitions: dict[str, Any]) -> None:
    """`strategy: lora` beside `strategy: {kind: lora}`."""
    choices = union.pop("oneOf")
    union.pop("discriminator", None)
    kinds = [definitions[choice["$ref"].rpartition("/")[2]]["properties"]["kind"]["const"] for choice in choices]
    union["anyOf"] = [{"enum": kinds}, *choices]
