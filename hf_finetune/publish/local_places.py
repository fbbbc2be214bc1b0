"""What of a recipe or a text belongs to this machine, and both without it: for others to read and run."""

from __future__ import annotations

import getpass
import html
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hf_finetune.recipes.training_arguments import REPORTING

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_ELSEWHERE = ("package:", "memory:", "hf://", "https://", "http://")
_ABSOLUTE = re.compile(r"[/~\\]|[A-Za-z]:[/\\]")
_METRIC = "evaluate:"


def is_hub_id(name: str) -> bool:
    """Whether a checkpoint's or data set's name means one of the Hub: `name` or `owner/name`, and no file here."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def local_places(recipe: Recipe) -> tuple[str, ...]:
    """The folders and files that a recipe names, as it writes them."""
    found: dict[str, None] = {}

    def collect(text: str) -> str:
        found[text] = None
        return text

    _replaced(recipe.written(), collect, frozenset())
    return tuple(found)


def public_recipe(recipe: Recipe, name: str, local: tuple[str, ...] = ()) -> Recipe:
    """The recipe as strangers may see it: no path of this machine, no service to report to, nowhere to push.

    A folder or file becomes `./` and its last name, which tells what kind of thing to put there.

    Args:
        recipe: of a run.
        name: of the repository, without its owner.
        local: what was found to be a folder or a file when the run was made.
    """
    values = _replaced(recipe.written(), last_name, frozenset(local))
    values.pop("hub")
    values["output_dir"] = f"runs/{name}"
    values["training"] = {key: value for key, value in values["training"].items() if key not in REPORTING}
    return type(recipe).model_validate(values)


def last_name(path: str) -> str:
    """`/home/somebody/photos` as `./photos`."""
    pure = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    return f"./{pure.name or 'folder'}"


def own_places() -> dict[str, str]:
    """Working directory and home of who runs this, and what stands in their stead: the same places, without a name."""
    user = getpass.getuser() if os.environ.get("USER") or os.environ.get("LOGNAME") else ""
    homes = (str(Path.home()), *((f"/home/{user}", f"/Users/{user}") if user else ()))
    return {str(Path.cwd()): ".", **dict.fromkeys(homes, "~")}


def as_written(places: Mapping[str, str]) -> dict[str, str]:
    """Places in every way in which they may be written, longest first, and what stands in their stead."""
    kept = {place: word for place, word in places.items() if len(place.strip("/\\")) > 2}
    written = {way: word for place, word in kept.items() for way in ways_to_write(place)}
    return dict(sorted(written.items(), key=lambda pair: -len(pair[0])))


def ways_to_write(place: str) -> set[str]:
    """A place as it is, and as HTML (by Python and by the page's template), JSON and addresses write it."""
    escaped = html.escape(place)
    page = escaped.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    return {place, escaped, page, json.dumps(place)[1:-1], json.dumps(place, ensure_ascii=False)[1:-1], quote(place)}


def without(text: str, written: Mapping[str, str]) -> str:
    """A text without places, given by `as_written`; each only as a whole, so that `/root` is no part of `/roots`."""
    for place, word in written.items():
        if place in text:  # far sooner found out in a large page
            text = re.sub(rf"(?<![\w.-]){re.escape(place)}(?![\w-])", word.replace("\\", r"\\"), text)
    return text


def _replaced(values: dict[str, Any], change: Callable[[str], str], known: frozenset[str]) -> dict[str, Any]:
    """The recipe's values with `change` applied to every text that is a place on this machine."""

    def place(text: str) -> str:
        if text in known or (not text.startswith(_ELSEWHERE) and not is_hub_id(text)):
            return change(text)
        return text

    changed = {key: _each(value, _absolute(change)) for key, value in values.items() if key != "output_dir"}
    changed["output_dir"] = values["output_dir"]
    for section, key in _places(changed):
        section[key] = _each(section[key], place)
    metrics = changed["evaluation"].get("metrics") or []
    changed["evaluation"]["metrics"] = [_metric(name, place) for name in metrics] or None
    return changed


def _places(values: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a recipe says where something lies."""
    yield values["model"], "checkpoint"
    yield values["data"], "dataset"
    for task in (values.get("tasks") or {}).values():
        if task.get("data"):
            yield task["data"], "dataset"
    if values.get("distill"):
        yield values["distill"], "teacher"


def _metric(name: str, place: Callable[[str], str]) -> str:
    return _METRIC + place(name.removeprefix(_METRIC)) if name.startswith(_METRIC) else name


def _absolute(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: change(text) if _ABSOLUTE.match(text) and len(text) > 1 else text


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """A value with `change` applied to every text in it; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(inner, change) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each(inner, change) for inner in value]
    return value
