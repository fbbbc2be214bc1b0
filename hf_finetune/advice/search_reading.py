"""A search space, read and checked against the recipe's schema before anything starts."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hf_finetune.advice.search_defaults import default_space
from hf_finetune.advice.search_space import (
    HOLDERS,
    Parameter,
    Space,
    chooses_kind,
    kind_in,
    kind_of_text,
    kinds_with,
    leaves,
    typed,
    with_values,
)
from hf_finetune.errors import Fault, RecipeError, UserError
from hf_finetune.recipes.faults import shown
from hf_finetune.recipes.keys import known_keys, mapping_keys, unknown_key, wrong_kind
from hf_finetune.recipes.yaml_text import LARGEST, Plain, read_value, read_yaml

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe

_ROWS = "decides which rows are learnt from or scored: trials could not be compared"
_NOT_SEARCHED = {
    "task": _ROWS,
    "tasks": _ROWS,
    "output_dir": "each trial has a folder of its own: give out=DIR",
    "hub": "a trial is not pushed: push the winner",
    "expected": "is what was measured",
    "seed": "another seed is another draw of luck, not a better recipe",
    "seeds": "the winner is trained with as many as the recipe says",
    "evaluation": "decides what is measured: trials could not be compared",
    **{
        f"data.{name}": _ROWS
        for name in (
            "dataset", "config", "revision", "label", "problem_type", "train_split", "test_split", "validation",
            "max_train_samples", "max_eval_samples", "on_error", "clean", "seed",
        )
    },
}  # fmt: skip
_RANGE = ("low", "high", "log", "step")


def read_space(given: str | None, recipe: Recipe) -> Space:
    """The space of a search.

    Args:
        given: a YAML file, or the same written out as `{key: [a, b], key: {low: 1e-5, high: 1e-3, log: true}}`; keys
            may be nested in sections as in a recipe. None for the strategy's own.
        recipe: that it is searched around.

    Raises:
        UserError: every fault at once: unknown keys, values that the schema refuses, bounds that make no sense.
    """
    raw, origins = (default_space(recipe), dict[str, str]()) if given is None else _raw(given)
    flat = list(_flat(raw, ""))
    entries = dict(flat)
    counts = Counter(key.removesuffix(".kind") if chooses_kind(key) else key for key, _ in flat)
    faults = [Fault(key, "is given twice: give it once", "space") for key, count in counts.items() if count > 1]
    found: list[Parameter] = []
    kinds = {key: _texts(value) for key, value in entries.items() if chooses_kind(key)}
    for key, value in entries.items():
        origin = origins.get(key, "space")
        try:
            found.append(_parameter(key, value, recipe, kinds))
        except RecipeError as error:
            faults += [Fault(fault.path, fault.message, origin) for fault in error.faults]
        except ValueError as error:
            faults.append(Fault(key, str(error), origin))
    if not entries:
        faults.append(Fault("space", "names no key: give at least one, such as training.learning_rate"))
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise UserError(f"{count} in the search space:\n" + "\n".join(f"  {fault}" for fault in faults))
    return Space(tuple(found))


def _raw(given: str) -> tuple[dict[str, Any], dict[str, str]]:
    source, text = ("space", given) if given.lstrip().startswith("{") else (Path(given).name, _text_of(given))
    reading = read_yaml(text)
    if reading.faults:
        faults = "\n".join(f"  {source} line {line}: {message}" for _, line, message in reading.faults)
        raise UserError(f"space={shown(given)} cannot be read:\n{faults}")
    if not isinstance(reading.value, dict):
        raise UserError(f"space={shown(given)}: must be keys and values, such as {{training.weight_decay: [0, 0.1]}}")
    lines = {".".join(path): f"{source} line {line}" for path, line in reading.lines.items()}
    return reading.value, lines if source != "space" else {}


def _text_of(given: str) -> str:
    path = Path(given).expanduser()
    if not path.is_file():
        raise UserError(f"space={given}: there is no such file. Give a YAML file, or '{{key: [a, b]}}' itself.")
    try:
        with path.open(encoding="utf-8") as opened:
            return opened.read(LARGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"space={given}: cannot be read: {error}") from error


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Keys as dotted paths; sections of a recipe are gone into."""
    for name, inner in value.items():
        key = f"{prefix}{name}"
        is_section = any(known.startswith(f"{key}.") for known in known_keys())
        if is_section and isinstance(inner, dict) and not {"low", "high", "choices"} & set(inner):
            yield from _flat(inner, f"{key}.")
        else:
            yield key, inner


def _parameter(key: str, value: Any, recipe: Recipe, kinds: Mapping[str, list[str]]) -> Parameter:
    """One entry, checked.

    Raises:
        ValueError: what is wrong with it, in words.
        RecipeError: what the schema refuses.
    """
    for refused, why in _NOT_SEARCHED.items():
        if key == refused or key.startswith(f"{refused}."):
            raise ValueError(f"is not for a search: it {why}" if why == _ROWS else f"is not for a search: {why}")
    if key not in known_keys() and not key.startswith(tuple(f"{name}." for name in mapping_keys())):
        raise ValueError(unknown_key(key))
    only = kinds_with(key)
    base = _recipe_with(key, only, recipe, kinds)
    if isinstance(value, dict) and set(value) == {"choices"}:
        value = value["choices"]
    if isinstance(value, list):
        texts = [_as_typed(text, typed(base, key, text)) for text in _texts(value)]
        if chooses_kind(key) and "auto" in map(kind_of_text, texts):
            raise ValueError("auto chooses by measurements, which the winner's run would take anew: name strategies")
        if len(set(texts)) < 2:
            raise ValueError(f"{shown(value)}: a choice needs two different values at least")
        return Parameter(key, "choice", choices=tuple(dict.fromkeys(texts)), only=only)
    if not isinstance(value, dict):
        raise ValueError(
            f"{shown(value)} is one value: give a list such as [a, b], or {{low: a, high: b}}; what all trials share "
            "is given beside space=, as key=value"
        )
    return _range(key, value, base, only)


def _recipe_with(key: str, only: tuple[str, ...], recipe: Recipe, kinds: Mapping[str, list[str]]) -> Recipe:
    """The recipe, with the first kind in the space that has the key where its own has not."""
    kind = kind_in({}, recipe, key)
    holder = key.rpartition(".")[0]
    if not only or kind in only:
        return recipe
    for chooser in (holder, f"{holder}.kind"):
        for text in kinds.get(chooser, []):
            if kind_of_text(text) in only and holder in HOLDERS:
                return with_values(recipe, {chooser: text})
    raise ValueError(wrong_kind(key, kind) or unknown_key(key))


def _range(key: str, value: Mapping[str, Any], recipe: Recipe, only: tuple[str, ...]) -> Parameter:
    for name in value:
        if name not in _RANGE:
            close = difflib.get_close_matches(name, _RANGE, n=1)
            guess = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"has '{name}': allowed are low, high, log and step, or a list of values{guess}")
    low, high = (_number(value, name) for name in ("low", "high"))
    if low is None or high is None:
        raise ValueError("needs both low and high")
    step, log = _number(value, "step"), str(value.get("log", "false")).lower()
    if log not in ("true", "false"):
        raise ValueError(f"log is {shown(value['log'])}: true or false")
    ends = [typed(recipe, key, _written(value[name])) for name in ("low", "high")]
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends):
        raise ValueError("has no numbers between two others: give a list of its values")
    if not low < high:
        raise ValueError(f"low {low:g} must be less than high {high:g}")
    if log == "true" and low <= 0:
        raise ValueError(f"low {low:g}: with log it must be more than 0")
    if step is not None and (log == "true" or step <= 0 or step > high - low):
        raise ValueError(f"step {step:g}: more than 0, not more than high less low, and without log")
    if step is not None and not math.isclose(low + round((high - low) / step) * step, high, rel_tol=1e-9):
        last = low + math.floor((high - low) / step) * step
        raise ValueError(f"high {high:g} is not low and whole steps of {step:g}: the last one is {last:g}")
    whole = all(isinstance(end, int) for end in ends)
    if whole and step is not None and step != int(step):
        raise ValueError(f"step {step:g}: takes whole numbers")
    if whole and log == "true" and low < 1:
        raise ValueError(f"low {low:g}: with log whole numbers begin at 1")
    return Parameter(key, "int" if whole else "float", low, high, log == "true", step, only=only)


def _number(value: Mapping[str, Any], name: str) -> float | None:
    if value.get(name) is None:
        return None
    try:
        number = float(value[name])
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {shown(value[name])}: must be a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} is {shown(value[name])}: must be a finite number")
    return number


def _texts(value: Any) -> list[str]:
    return [_written(item) for item in value] if isinstance(value, list) else []


def _written(value: Any) -> str:
    """A value as the command line would have it: reading it again gives the same."""
    if isinstance(value, Plain):
        return str(value)
    if isinstance(value, str):
        return value if isinstance(read_value(value or "null"), Plain) else _flow(value)
    return _flow(value)


def _as_typed(text: str, value: Any) -> str:
    """A number in one spelling: 1e-4 and 0.0001 are the same choice."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return text
    return short if float(short := f"{value:g}") == value else repr(value)


def _flow(value: Any) -> str:
    return yaml.safe_dump(leaves(value), default_flow_style=True, width=math.inf, allow_unicode=True).strip(".\n ")
