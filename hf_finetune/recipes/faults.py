"""From pydantic's errors to faults a person can mend: origin, path, what was given, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_origin

from pydantic import ValidationError

from hf_finetune.errors import Fault
from hf_finetune.recipes.keys import kind_of, known_keys, sections_in, unknown_key, wrong_kind
from hf_finetune.recipes.section import UNION_FORMS
from hf_finetune.recipes.yaml_text import Path

Origins = Mapping[Path, str]
_GUESSED = 50  # faults for which the nearest name is looked for: it takes milliseconds, and a file may have thousands


def origin_of(path: Path, origins: Origins) -> str:
    """Where the value at `path`, or the nearest section around it, was given."""
    for length in range(len(path), -1, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return "default"


def with_origin(fault: Fault, origins: Origins) -> Fault:
    """The fault with its origin filled in."""
    return replace(fault, origin=origin_of(tuple(fault.path.split(".")), origins))


def field_faults(error: ValidationError, origins: Origins) -> list[Fault]:
    """One fault for every key that pydantic refuses, in the recipe's order."""
    grouped: dict[Path, list[Any]] = {}
    kinds: dict[Path, str] = {}
    for item in error.errors(include_url=False):
        if item["loc"]:
            path, kind = _path(item["loc"])
            grouped.setdefault(path, []).append(item)
            kinds[path] = kind or ""
    faults: list[Fault] = []
    for path, items in grouped.items():
        unknown = items[0]["type"] == "extra_forbidden"
        for place in _as_given(path, origins) if unknown and len(faults) < _GUESSED else [path]:
            dotted = ".".join(place)
            guessed = _unknown(dotted, kinds[path]) if unknown and len(faults) < _GUESSED else "unknown key"
            message = guessed if unknown else _message(items)
            faults.append(Fault(dotted or "recipe", message, origin_of(place, origins)))
    return faults


def _path(loc: tuple[int | str, ...]) -> tuple[Path, str | None]:
    """The recipe's path of a pydantic location, which also holds union labels, and the kind of its section."""
    from hf_finetune.recipes.schema import Recipe

    path: list[str] = []
    sections: list[Any] = [Recipe]
    kind, named = None, False
    for item in map(str, loc):
        if item in UNION_FORMS:
            continue
        # A union's tag comes before any field, one of which may be called the same (the stages of strategy=stages).
        tagged = [section for section in sections if kind_of(section) == item] if len(sections) > 1 else []
        if tagged:
            sections, kind = tagged, item
            continue
        if sections and (named or item.isdigit()):  # a name in a mapping of sections, or the place in a list of them
            path.append(item)
            named = False
            continue
        owner = next((section for section in sections if item in section.model_fields), None)
        if not sections:
            break  # inside a value: its key is what can be named
        path.append(item)
        sections = sections_in(owner.model_fields[item].annotation) if owner else []
        named = owner is not None and get_origin(owner.model_fields[item].annotation) is dict
    return tuple(path), kind


def _as_given(path: Path, origins: Origins) -> list[Path]:
    """An unknown section is named as the user wrote it: by the key inside it where only that was given."""
    if path in origins:
        return [path]
    return [given for given in origins if given[: len(path)] == path] or [path]


def _unknown(dotted: str, kind: str) -> str:
    if any(piece.isdigit() for piece in dotted.split(".")) or dotted.startswith("tasks."):
        return f"unknown key; there are {', '.join(_fields_around(dotted, kind))}"
    if dotted in known_keys() and not known_keys()[dotted]:
        return f"does not go with the other keys of {dotted.rpartition('.')[0]}: some are for images, some for texts"
    return (wrong_kind(dotted, kind) if kind else None) or unknown_key(dotted)


def _fields_around(dotted: str, kind: str) -> list[str]:
    """The keys of the section in a list that a path leads into."""
    from hf_finetune.recipes.schema import Recipe

    sections: list[Any] = [Recipe]
    for name in dotted.split(".")[:-1]:
        inner = [section for s in sections if name in s.model_fields for section in _inside(s, name)]
        sections = inner or sections  # a place in a list, or the name of a task, is in no section
    chosen = [section for section in sections if kind_of(section) == kind] or sections
    return list(dict.fromkeys(name for section in chosen for name in section.model_fields))


def _inside(section: Any, name: str) -> list[Any]:
    return sections_in(section.model_fields[name].annotation)


def shown(value: Any) -> str:
    """A value as a fault shows it, cut to a readable length."""
    text = f"'{value}'" if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _message(items: list[Any]) -> str:
    if items[0]["type"] == "missing":
        return "is missing: a recipe needs it"
    if items[0]["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _kind_message(items[0])
    if items[0]["loc"][-1] == "constrained-float" or (len(items) > 1 and any("gt" in i.get("ctx", {}) for i in items)):
        wanted = "a share more than 0 and less than 1, or a split's name"
    else:
        wanted = " or ".join(dict.fromkeys(map(_wanted, items)))
    if items[0]["loc"][-1] == UNION_FORMS[0]:
        wanted += ", or changes by name such as {flip: 0.5}"
    given = items[0]["input"]
    guess = ""
    if items[0]["type"] == "literal_error" and isinstance(given, str):
        close = difflib.get_close_matches(given, _choices(items[0]), n=1)
        guess = f"; did you mean {close[0]}?" if close else ""
    return f"{shown(given)} must be {wanted}{guess}"


def _kind_message(item: Any) -> str:
    allowed = [name.strip("' ") for name in item["ctx"].get("expected_tags", "").split(",") if name]
    given = item["ctx"].get("tag")
    if given is None:
        return "needs a kind, such as {kind: ...}"
    close = difflib.get_close_matches(given, allowed, n=1)
    return f"{shown(given)} is not a kind of it; choose {', '.join(allowed)}" + (
        f"; did you mean {close[0]}?" if close else ""
    )


def _choices(item: Any) -> list[str]:
    return [name.strip("'") for part in item["ctx"]["expected"].split(" or ") for name in part.split(", ")]


def _wanted(item: Any) -> str:
    """What was wanted, in words, from one pydantic error."""
    kind, context = item["type"], item.get("ctx", {})
    if kind.startswith(("int_", "int")):
        return "a whole number"
    if kind.startswith("float"):
        return "a number"
    if kind.startswith("bool"):
        return "true or false"
    if kind.startswith("string"):
        return "text"
    if kind.startswith("dict"):
        return "a mapping such as {key: value}"
    if kind.startswith(("list", "tuple")):
        return "a list such as [a, b]"
    if kind.startswith("model"):
        return "a section with keys"
    if kind == "literal_error":
        return "one of " + ", ".join(_choices(item))
    if kind == "too_short":
        return f"a list of at least {context.get('min_length')}"
    bounds = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
    if kind in bounds:
        words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
        return f"{words[bounds[kind]]} {context[bounds[kind]]}"
    if kind == "finite_number":
        return "a finite number"
    return str(item["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
