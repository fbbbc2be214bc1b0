"""Writes docs/reference/recipe.md, every key of a recipe, from the recipe's own schema.

    python docs/reference/recipe_page.py > docs/reference/recipe.md

A test compares the page with the schema.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from hf_finetune.recipes.schema import Recipe

HEAD = """\
# Every key of a recipe

Made from the schema (`python docs/reference/recipe_page.py > docs/reference/recipe.md`); `hf-finetune schema` prints
the same as JSON schema, for editors. On the command line a key is written with dots: `strategy.r=4`.
`hf-finetune recipes NAME --origin` shows every value of a recipe as it would run, and where it came from.
"""


def page() -> str:
    """The page, as Markdown."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    lines = [HEAD, "## The recipe itself", "", *_table("", schema, definitions)]
    seen: set[str] = set()
    for key, value in schema["properties"].items():
        for name in _references(value):
            lines += _section(key, name, definitions, seen)
    return "\n".join(lines) + "\n"


def _section(path: str, name: str, definitions: dict[str, Any], seen: set[str], depth: int = 2) -> list[str]:
    """A heading, what the section says of itself, its keys, and the sections that these hold."""
    if name in seen:
        return []
    seen.add(name)
    definition = definitions[name]
    kind = definition["properties"].get("kind", {}).get("const")
    title = f"{path}={kind}" if kind else f"{path}."
    lines = ["", f"{'#' * depth} `{title}`", "", _sentence(definition.get("description", "")), ""]
    lines += _table(path, definition, definitions)
    for key, value in definition["properties"].items():
        for inner in _references(value):
            lines += _section(f"{path}.{key}", inner, definitions, seen, depth + 1)
    return lines


def _table(path: str, definition: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{f'{path}.{key}' if path else key}` | {_type(value, definitions)} | {_default(key, value, definition)} "
        f"| {_sentence(value.get('description', ''))} |"
        for key, value in definition["properties"].items()
        if "const" not in value
    ]
    return ["| key | value | if left out | |", "|---|---|---|---|", *rows] if rows else ["No further keys."]


def _references(value: Any) -> Iterator[str]:
    """Names of the definitions that a key's value may be, in their order."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for key in ("anyOf", "oneOf", "items", "additionalProperties"):
            yield from _references(value.get(key))
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _type(value: Any, definitions: dict[str, Any]) -> str:
    """The type in words."""
    if not isinstance(value, dict) or not value:
        return "any"
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        kind = definitions[name]["properties"].get("kind", {}).get("const")
        return f"`{kind}`" if kind else "a section"
    for key in ("anyOf", "oneOf"):
        if key in value:
            words = [_type(item, definitions) for item in value[key] if item.get("type") != "null"]
            return " or ".join(dict.fromkeys(words))
    if "enum" in value:
        return ", ".join(f"`{item}`" for item in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value.get("type")
    if kind == "array":
        if "prefixItems" in value:
            return f"list of {len(value['prefixItems'])}: {_type(value['prefixItems'][0], definitions)}"
        return f"list of {_type(value.get('items'), definitions)}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"mapping to {_type(inner, definitions)}" if isinstance(inner, dict) else "mapping"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(str(kind), "any") + _bounds(value)


def _bounds(value: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]
    return f" {', '.join(said)}" if said else ""


def _default(key: str, value: dict[str, Any], definition: dict[str, Any]) -> str:
    if key in definition.get("required", ()):
        return "**needed**"
    default = value.get("default")
    if default is None:
        return ""
    if isinstance(default, dict):
        return f"`{default['kind']}`" if "kind" in default else ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _sentence(text: str) -> str:
    """One line of a table's cell; of a long help its first sentences."""
    text = " ".join(text.split()).replace("|", "/").replace("<", "&lt;")
    return text if len(text) < 320 else f"{text[:320].rpartition('. ')[0] or text[:300].rpartition(' ')[0]}."


if __name__ == "__main__":
    sys.stdout.write(page())
