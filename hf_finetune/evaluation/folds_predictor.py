"""The folds of a cross-validated run as one model: the mean of what they answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.errors import UserError
from hf_finetune.evaluation.predictor import Predictor
from hf_finetune.outputs import Rule, probabilities

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

_TINY = 1e-12  # of a probability


@dataclass
class FoldsPredictor(Predictor):
    """Answers with the mean of the folds' probabilities, of numbers with the mean of the numbers.

    These are the answers that `cross_validation.ensemble` of metrics.json has scored. Thresholds of several labels are
    the means of the folds'. There are no prediction sets: each fold's promise is for its own answers.

    Args:
        folds: folders of the folds' runs.
        members: of each its model.
    """

    folds: tuple[Path, ...] = ()
    members: tuple[Predictor, ...] = ()

    @cached_property
    def rule(self) -> Rule:
        """How the mean becomes an answer; the members divide by their own temperatures."""
        return Rule(thresholds=tuple(np.mean([one.rule.thresholds for one in self.members], axis=0).tolist()))

    def logits(self, samples: Any, collate: Any, batch_size: int = 32, progress: str | None = None) -> np.ndarray:
        """Logits (N, C) that give the mean probabilities; one model after the other."""
        found = [one.logits(samples, collate, batch_size, progress) for one in self.members]
        if self.problem_type == "regression":
            return np.asarray(np.mean(found, axis=0, dtype=np.float64), dtype=np.float32)
        likely = np.mean([probabilities(each, self.problem_type) for each in found], axis=0, dtype=np.float64)
        logits = np.log(np.clip(likely, _TINY, None))
        if self.problem_type == "multi_label_classification":
            logits -= np.log(np.clip(1 - likely, _TINY, None))
        return logits.astype(np.float32)


def predictor_of_folds(model: str | Path, recipe: Recipe | None, *, trust_remote_code: bool = False) -> FoldsPredictor:
    """The folds of a run that was cross-validated.

    Args:
        model: its output_dir.
        recipe: the run's own.
        trust_remote_code: run the checkpoints' code.

    Raises:
        UserError: it has no folds, or not all are there.
    """
    from hf_finetune.model import load_finished

    folders = tuple(Path(model) / "folds" / str(number) for number in range(1, _count(Path(model)) + 1))
    missing = [str(folder) for folder in folders if not (folder / "metrics.json").is_file()]
    if not folders or missing:
        why = f"{', '.join(missing)} is missing" if missing else "its metrics.json tells of no cross_validation"
        raise UserError(f"{model} has no folds to answer together: {why}.")
    members = tuple(
        Predictor.of(load_finished(folder, trust_remote_code=trust_remote_code), recipe) for folder in folders
    )
    first = members[0]
    strange = next((folder for folder, one in zip(folders, members, strict=True) if one.names != first.names), None)
    if strange is not None:
        raise UserError(f"{strange} answers with other labels than {folders[0]}: they cannot answer together.")
    settings = first.max_length, first.window_overlap, first.tta
    return FoldsPredictor(first.loaded, *settings, folds=folders, members=members)


def _count(folder: Path) -> int:
    """The folds that metrics.json tells of; 0 for none."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    return int(metrics.get("cross_validation", {}).get("folds", 0))
