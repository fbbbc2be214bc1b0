"""Whether two finished runs are the same to the bit, times excepted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_TIME = re.compile(r"(^|_)(time|runtime|seconds|energy_kwh)$|_per_second$")
_CLOCKS = ("Account", "Pace", "TimeBudget")  # callbacks whose state is time


def differences(whole: Path, other: Path) -> list[str]:
    """What differs between two runs' folders: saved weights, scores, log, predictions, and the newest checkpoint."""
    found = [] if (other / "report.html").is_file() else ["report.html is missing"]
    found += [*_weights(whole, other), *_same_bytes(whole, other, ["predictions.parquet"])]
    found += _unlike("metrics.json", _json(whole / "metrics.json"), _json(other / "metrics.json"))
    logs = [_json(folder / "about.json")["history"] for folder in (whole, other)]
    found += _unlike("log", *logs)
    return found + _checkpoints(whole / "checkpoints", other / "checkpoints")


def newest(checkpoints: Path) -> Path | None:
    """The checkpoint of the highest step."""
    found = [path for path in checkpoints.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return max(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def _weights(whole: Path, other: Path) -> list[str]:
    names = [{path.name for path in folder.glob("*.safetensors")} for folder in (whole, other)]
    if names[0] != names[1] or not names[0]:
        return [f"weights: {sorted(names[0])} against {sorted(names[1])}"]
    return _same_bytes(whole, other, sorted(names[0]))


def _same_bytes(whole: Path, other: Path, names: list[str]) -> list[str]:
    contents = [
        (name, *(f.read_bytes() if f.exists() else None for f in (whole / name, other / name))) for name in names
    ]
    return [name for name, first, second in contents if first != second]


def _checkpoints(whole: Path, other: Path) -> list[str]:
    first, second = newest(whole), newest(other)
    if first is None or second is None or first.name != second.name:
        return [f"newest checkpoint: {first} against {second}"]
    names = [sorted(path.name for path in folder.iterdir()) for folder in (first, second)]
    if names[0] != names[1]:
        return [f"{first.name}: {names[0]} against {names[1]}"]
    found = []
    for name in names[0]:
        if name in ("sealed.json", "training_args.bin") or _same_bytes(first, second, [name]) == []:
            continue
        if name == "trainer_state.json":
            states = [_state(_json(folder / name)) for folder in (first, second)]
            found += _unlike(f"{first.name}/{name}", *states)
        elif not name.endswith((".pt", ".pth")) or not _same_objects(first / name, second / name):
            found.append(f"{first.name}/{name}")
    return found


def _state(state: dict[str, Any]) -> dict[str, Any]:
    """A Trainer's state without clocks and places."""
    state["best_model_checkpoint"] = Path(state["best_model_checkpoint"] or "").name
    kept = state["stateful_callbacks"]
    state["stateful_callbacks"] = {name: values for name, values in kept.items() if name not in _CLOCKS}
    return state


def _same_objects(first: Path, second: Path) -> bool:
    """Of the same values the order in which they are pickled may differ."""
    import torch

    return _alike(*(torch.load(path, weights_only=False) for path in (first, second)))


def _alike(first: Any, second: Any) -> bool:
    import numpy as np
    import torch

    if isinstance(first, torch.Tensor):
        return bool(isinstance(second, torch.Tensor) and torch.equal(first, second))
    if isinstance(first, np.ndarray):
        return bool(np.array_equal(first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_alike(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(_alike, first, second))
    return bool(first == second)


def _json(path: Path) -> Any:
    return _timeless(json.loads(path.read_text()))


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if not _TIME.search(key)}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _unlike(name: str, first: Any, second: Any) -> list[str]:
    """Where two JSON values differ, at most three places."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = sorted(first.keys() | second.keys())
        parts = [_unlike(f"{name}.{key}", first.get(key), second.get(key)) for key in keys]
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        parts = [_unlike(f"{name}[{place}]", *pair) for place, pair in enumerate(zip(first, second, strict=True))]
    else:
        same = first == second or (first != first and second != second)
        parts = [[] if same else [f"{name}: {str(first)[:80]} against {str(second)[:80]}"]]
    return [line for part in parts for line in part][:3]
