"""One run that is struck, and where the blows fall."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills_legs import Leg, forked

PLACES = {"write": "writing a checkpoint", "cache": "filling the cache"}


@dataclass
class Case:
    """One run that is struck.

    Args:
        variation: what runs.
        folder: of the run, its cache and its log.
        launch: starts a leg.
        known: what was measured of this machine, which every case takes over: it is not the run's.
    """

    variation: Any
    folder: Path
    launch: Callable[..., Leg] = forked
    known: Path | None = None
    blows: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """Its output_dir."""
        return self.folder / "run"

    def leg(self) -> Leg:
        """Start the command."""
        if self.known is not None and not self.folder.exists():
            (self.folder / "cache").mkdir(parents=True)
            shutil.copy(self.known, self.folder / "cache")
        self.folder.mkdir(exist_ok=True)
        arguments = [*self.variation.arguments, f"output_dir={self.run}"]
        return self.launch(arguments, {"HF_FINETUNE_CACHE": str(self.folder / "cache")}, self.folder / "log")

    def said(self) -> str:
        """All that its legs have printed."""
        return (self.folder / "log").read_text(errors="replace")


class Watch:
    """What a leg is doing, seen from its folders; what an earlier leg has left there does not count."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._before = {aim: self._seen(aim) for aim in PLACES}

    def _seen(self, aim: str) -> Any:
        if aim == "write":
            places = [self.case.run / "checkpoints" / "partial"]
        else:
            places = list((self.case.folder / "cache" / "prefix").glob(".partial-*"))
        return [seen for place in places if (seen := _identity(place)) is not None]

    def at(self, aim: str) -> bool:
        """Whether it writes a checkpoint, or fills the cache, now."""
        return any(entry not in self._before[aim] for entry in self._seen(aim))

    def nth(self, aim: str, number: int) -> Callable[[], bool]:
        """Whether it does so for the n-th time."""
        state = {"inside": False, "count": 0}

        def reached() -> bool:
            inside = self.at(aim)
            state["count"] += inside and not state["inside"]
            state["inside"] = inside
            return state["count"] >= number

        return reached

    def place(self) -> str:
        """Where the blow has fallen, as the folders and the log show it."""
        for aim, words in PLACES.items():
            if self.at(aim):
                return words
        run = self.case.run
        if not (run / "state.json").exists():
            return "before training"
        if (run / "metrics.json").exists():
            return "after the end"
        if list(run.glob("*.safetensors")):
            return "saving the model"
        said = self.case.said()
        if not (run / "checkpoints").exists() or "stage 2 of 2" in said:
            return "in a second stage, or after training" if "stage 2 of 2" in said else "before the first checkpoint"
        return "in a step or an evaluation, or after training"


def _identity(place: Path) -> tuple[str, int, int] | None:
    try:
        found = place.stat()
    except OSError:  # not there, or gone just now
        return None
    return place.name, found.st_ino, found.st_ctime_ns
