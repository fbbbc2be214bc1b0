"""Whether a folder's run is the one that is asked for, and whether it can go on exactly.

A difference is harmless where the rest of the run is the same with it: it is told. Every other one stops the start,
with what differs, unless `--accept-changes` says that the run is to go on all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hf_finetune.console import say, warn
from hf_finetune.errors import UserError
from hf_finetune.recipes import Recipe

FLAG = "--accept-changes (in Python, accept_changes=True)"
# Facts that every run has: where one is missing, the run began before it was written down.
_ALWAYS = frozenset({"processes", "precision", "products", "attention", "rows", "versions"})
# What a step is computed by. Within a series (the first two numbers) these keep their arithmetic, as a rule.
_COMPUTING = ("hf_finetune", "torch", "transformers", "accelerate", "peft", "timm")
# Settings of how samples are fetched, how much is kept, and who is told: no step and no score depends on them.
HARMLESS = (
    *(
        f"training.dataloader_{name}"
        for name in ("num_workers", "prefetch_factor", "pin_memory", "persistent_workers", "multiprocessing_context")
    ),
    *(f"training.{name}" for name in ("eval_accumulation_steps", "report_to", "run_name", "save_total_limit")),
)
# Settings by which a run gets along with its machine; steps and their rows are the same with others.
_OF_THE_MACHINE = tuple(
    f"training.{name}"
    for name in ("auto_find_batch_size", "gradient_checkpointing", "ddp_timeout", "skip_nonfinite_steps")
)
_REASONS = {
    "data": "The data is not what this run was started on (another fingerprint), so it cannot go on exactly. "
    "Restore the data, give another output_dir",
    "frozen": "The frozen weights are not those that this run was started with (the checkpoint has changed), so it "
    "cannot go on exactly. Pin model.revision, restore the checkpoint, give another output_dir",
    "teacher": "The teacher's weights are not those that this run was started with, so it cannot go on exactly. Pin "
    "distill.revision, restore the teacher, give another output_dir",
    "processes": "This run was started with another number of processes, which decides the size of a batch and who "
    "sees which rows, so it cannot go on exactly. Start as many, give another output_dir",
    "versions": "This run was started with other releases of libraries that compute its steps, so it cannot go on "
    "exactly. Install those, give another output_dir",
}


def differences(
    written: Recipe, asked: Recipe, free: Collection[str] = (), began: Mapping[str, str] | None = None
) -> list[str]:
    """Settings that differ, as `path: there | here`; a revision that the run has pinned is no difference.

    Args:
        written: of the run in the folder.
        asked: of this start.
        free: paths that may differ.
        began: the revisions that the run was started with (`asked_revisions`).
    """
    there, here = (_settings(recipe) for recipe in (written, asked))
    began = began or {}
    return [
        f"{path}: there {there.get(path)!r}, here {here.get(path)!r}"
        for path in sorted(there.keys() | here.keys())
        if path not in free
        and there.get(path) != here.get(path)
        and not (_is_revision(path) and here.get(path) == began.get(path))
    ]


def asked_revisions(recipe: Recipe) -> dict[str, str]:
    """The branches, tags and commits that a recipe names, by path: a finished run's own names only commits."""
    return {path: value for path, value in _settings(recipe).items() if _is_revision(path)}


def _settings(recipe: Recipe) -> dict[str, Any]:
    return _flat(recipe.model_dump(mode="json", exclude={"expected", "output_dir", "hub", "seeds"}))


def _is_revision(path: str) -> bool:
    return path.endswith(".revision")


def for_speed(recipe: Recipe) -> tuple[str, ...]:
    """Settings of speed and memory: a run that was interrupted may go on with others. Views are other images."""
    kept = ("cache.max_gb",) if recipe.cache.views is not None else ("cache.max_gb", "cache.prefix")
    return (*kept, *_OF_THE_MACHINE)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    pairs = (_flat(inner, f"{path}.{key}" if path else str(key)) for key, inner in value.items())
    return {key: leaf for pair in pairs for key, leaf in pair.items() if leaf is not None}


def compare(then: Mapping[str, Any], now: Mapping[str, Any], accept: bool = False) -> list[str]:
    """Compare the facts of a run when it began and now.

    Args:
        then: of the run in the folder, without what it finds out only later.
        now: of this start.
        accept: go on with what differs, after a warning.

    Returns:
        what differs and was accepted, in words.

    Raises:
        UserError: the run cannot go on exactly.
    """
    if not then:
        return _compare_nothing(accept)
    old = {name for name in _ALWAYS if name not in then}
    stops = {name: _shown(then, now, name) for name in _REASONS if name not in old and _differs(then, now, name)}
    accepted = [f"{name}: {shown}" for name, shown in stops.items()]
    if stops and not accept:
        first = next(iter(stops))
        more = "".join(f"\nAlso: {line}." for line in accepted[1:])
        raise UserError(f"{_REASONS[first]}, or go on all the same with {FLAG}. What differs: {stops[first]}.{more}")
    for line in accepted:
        warn(f"accepted, and no longer the run that was started: {line}")
    for name, began in _versions_in_words(then, now) if "versions" not in {*old, *stops} else ():
        say(f"note: this run was started with {name} {began}.")
    for name in sorted((then.keys() | now.keys()) - {*_REASONS, *old, "rows"}):
        if then.get(name) == now.get(name):
            continue
        began = f"with {name} {then[name]}" if name in then else f"without {name}"
        goes_on = f"with {now[name]}" if name in now else "without"
        say(f"note: this run was started {began} and goes on {goes_on}.")
    return accepted


def _compare_nothing(accept: bool) -> list[str]:
    what = "state.json, which says on which data, weights and versions this run was started, is missing or unreadable"
    if not accept:
        raise UserError(f"{what}. Restore it, give another output_dir, or go on all the same with {FLAG}.")
    warn(f"accepted, and perhaps no longer the run that was started: {what}")
    return [what]


def _differs(then: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    if name != "versions":
        return bool(then.get(name) != now.get(name))
    there, here = then[name], now[name]
    return any(_series(there.get(library)) != _series(here.get(library)) for library in _COMPUTING)


def _series(version: str | None) -> tuple[str, ...]:
    return tuple((version or "").split("+")[0].split(".")[:2])


def _shown(then: Mapping[str, Any], now: Mapping[str, Any], name: str) -> str:
    if name == "versions":
        found = _versions_in_words(then, now)
        return ", ".join(f"{library} {words}" for library, words in found if library in _COMPUTING)
    there, here = (_short(facts.get(name)) for facts in (then, now))
    if name == "data" and "rows" in then:
        there, here = (f"{short} ({facts['rows']} rows)" for short, facts in ((there, then), (here, now)))
    return f"there {there}, here {here}"


def _short(fact: Any) -> str:
    return fact[:12] if isinstance(fact, str) and fact else repr(fact)


def _versions_in_words(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str]]:
    there, here = then.get("versions") or {}, now.get("versions") or {}
    return [
        (name, f"{there.get(name, 'absent')} and goes on with {here.get(name, 'none')}")
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
