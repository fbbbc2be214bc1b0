"""Reading and writing recipes as YAML, where text stays text until a field gives it a type.

YAML guesses types: `1e-4` is text to it, a commit `0123456` a number, `no` a boolean. A recipe has a schema, so nothing
needs guessing: only `null`, lists, mappings and quotes mean something, other scalars are handed over as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

Path = tuple[str, ...]

_NULL = ("", "~", "null", "Null", "NULL")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_HALF = re.compile("[\ud800-\udfff]")

# What a recipe may take, whoever has written it: a parser in Python reads about 100,000 characters a second.
DEEPEST = 20  # sections within sections
LARGEST = 1_000_000  # characters
_MOST = 20_000  # values
_LONGEST_KEY = 1_000  # characters, as of YAML's own simple keys
_DIGITS = 4_000  # of a number; Python reads no integer of more than 4,300


class Plain(str):
    """Unquoted text: takes the type of the field it lands in."""

    __slots__ = ()


def as_yaml(text: Plain) -> Any:
    """The value of unquoted text where no field gives it a type: a number, a boolean, or the text itself."""
    if text in ("true", "True", "false", "False"):
        return text.lower() == "true"
    if len(text) <= _DIGITS and _NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    return str(text)


@dataclass
class Reading:
    """What a YAML text holds.

    Args:
        value: nested dicts and lists of `Plain`, `str` (quoted) and None.
        lines: line number, from 1, of every key, by its path.
        faults: (path, line, message) of what is not allowed in a recipe's YAML.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[tuple[Path, int, str]] = field(default_factory=list)
    values: int = 0


def read_yaml(text: str) -> Reading:
    """Read one YAML document.

    Tags, anchors and aliases are not part of a recipe: each is a fault, and so is a key given twice. So is a text of
    more than a million characters, 20,000 values or 20 levels; what is beyond them is not read.
    """
    reading = Reading()
    if len(text) > LARGEST:
        reading.faults.append(((), 1, f"{len(text):,} characters; a recipe has at most {LARGEST:,}"))
        return reading
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        next(events)  # StreamStart
        if isinstance(next(events), yaml.StreamEndEvent):
            return reading
        reading.value = _build(events, next(events), (), reading)
        next(events)  # DocumentEnd
        following: Any = next(events)
        if not isinstance(following, yaml.StreamEndEvent):
            reading.faults.append(((), following.start_mark.line + 1, "a recipe is one YAML document, not several"))
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        reading.faults.append(((), mark.line + 1 if mark else 1, f"not YAML: {error.problem or error.context}"))
    except yaml.YAMLError as error:
        reading.faults.append(((), 1, f"not YAML: {error}"))
    except (ValueError, OverflowError) as error:  # PyYAML's, on escapes beyond Unicode ("\\UFFFFFFFF") and %YAML 1e9.1
        reading.faults.append(((), 1, f"not YAML: {error}"))
    return reading


def _build(events: Iterator[Any], event: Any, path: Path, reading: Reading) -> Any:
    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent):
        reading.faults.append((path, line, f"aliases (*{event.anchor}) are not part of a recipe: write the value out"))
        return None
    if event.anchor or (event.tag and event.tag != "!"):
        what = f"&{event.anchor}" if event.anchor else event.tag
        reading.faults.append((path, line, f"anchors and tags ({what}) are not part of a recipe: remove it"))
    if len(path) > DEEPEST:
        raise yaml.YAMLError(f"nested more than {DEEPEST} deep")
    reading.values += 1
    if reading.values > _MOST:
        raise yaml.YAMLError(f"more than {_MOST:,} values")
    if isinstance(event, yaml.ScalarEvent):
        if half := half_character(event.value):
            reading.faults.append((path, line, half))
            return _HALF.sub("?", event.value)  # what looks further for faults takes it for text
        if event.style is not None:
            return event.value
        return None if event.value in _NULL else Plain(event.value)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(inner := next(events), yaml.SequenceEndEvent):
            items.append(_build(events, inner, (*path, str(len(items))), reading))
        return items
    mapping: dict[str, Any] = {}
    while not isinstance(inner := next(events), yaml.MappingEndEvent):
        key_line = inner.start_mark.line + 1
        if not isinstance(inner, yaml.ScalarEvent):
            raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=inner.start_mark)
        if len(inner.value) > _LONGEST_KEY or _HALF.search(inner.value):
            raise yaml.MarkedYAMLError(
                problem=f"a key of {len(inner.value):,} characters, or with half a character, is no key of a recipe",
                problem_mark=cast(yaml.Mark, inner.start_mark),
            )
        here = (*path, inner.value)
        if inner.value in mapping:
            first = reading.lines[here]
            reading.faults.append((here, key_line, f"given twice (first on line {first}): keep one"))
        reading.lines[here] = key_line
        mapping[inner.value] = _build(events, next(events), here, reading)
    return mapping


def half_character(text: str) -> str | None:
    """What to say of text with a lone surrogate, which no file and no terminal takes; None where there is none."""
    return "holds half a character (a lone surrogate), which no file can keep" if _HALF.search(text) else None


def read_value(text: str) -> Any:
    """The value of `key=value`: null, a list, a mapping or quoted text are read as YAML, anything else is `Plain`.

    Raises:
        ValueError: it begins as a list, a mapping or quoted text and is not one.
    """
    text = text.strip()
    if text in _NULL or text[0] in "[{\"'":
        reading = read_yaml(text)
        if reading.faults:
            raise ValueError("; ".join(message for _, _, message in reading.faults))
        return reading.value
    return Plain(text)


class _Dumper(yaml.SafeDumper):
    """Block style for sections, one line for short lists and mappings."""


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _represent_list(dumper: _Dumper, value: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=all(map(_is_scalar, value)))


def _represent_text(dumper: _Dumper, value: str) -> yaml.Node:
    """Quote what this or any other YAML reader would not take as text."""
    style = None
    if not value.isprintable():
        style = '"'  # the only style that escapes, and so keeps, every kind of line end
    elif value in _NULL or _NUMBER.fullmatch(value) or value.lower() in ("y", "n"):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(Plain, _represent_text)


def write_yaml(value: Any) -> str:
    """Write nested dicts, lists and scalars so that `read_yaml` gives them back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)
