"""What a trial's model answered to the validation rows: kept, so that trials can be compared row by row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.console import is_main_process
from hf_finetune.files import write_whole
from hf_finetune.training.onlooker import Onlooker, Validated

if TYPE_CHECKING:
    from collections.abc import Callable


class Candidate(Onlooker):
    """Looks on for a search: hands scores to the study, and keeps the answers.

    Args:
        report: (share of the run, score, greater is better) -> whether to give the trial up; the same on every process.
        file: for the answers.
    """

    def __init__(self, report: Callable[[float, float, bool], bool], file: Path) -> None:
        self._report, self._file = report, file

    def evaluated(self, share: float, score: float, greater_is_better: bool) -> bool:
        """Ask the study."""
        return self._report(share, score, greater_is_better)

    def validated(self, outcome: Validated) -> None:
        """Keep what the model answers."""
        if is_main_process():
            write_answers(self._file, outcome)


def write_answers(file: Path, outcome: Validated) -> None:
    """Write them whole or not at all, without pickle."""

    def write(path: Path) -> None:
        with path.open("wb") as opened:
            np.savez_compressed(
                opened,
                metric=np.array(outcome.metric),
                score=np.array(outcome.score),
                greater_is_better=np.array(outcome.greater_is_better),
                problem_type=np.array(outcome.problem_type),
                logits=outcome.logits,
                labels=outcome.labels,
            )

    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, write)


def read_answers(file: Path) -> Validated:
    """The answers in a file."""
    with np.load(file, allow_pickle=False) as kept:
        found: dict[str, Any] = dict(kept)
    return Validated(
        metric=str(found["metric"]),
        score=float(found["score"]),
        greater_is_better=bool(found["greater_is_better"]),
        problem_type=str(found["problem_type"]),
        logits=found["logits"],
        labels=found["labels"],
    )
