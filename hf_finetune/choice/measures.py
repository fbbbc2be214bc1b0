"""What a checkpoint's features tell of the labels, as numbers; what matters most is measured first."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_finetune.choice.logme import log_evidence
from hf_finetune.choice.probes import (
    Probe,
    effective_rank,
    extrapolated,
    learning_curve,
    neighbours,
    noisy_share,
    ridge,
    standardized,
)

TOP = "the head's input"
METRICS = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "micro F1",
    "regression": "R2",
}


@dataclass
class Depths:
    """Pooled features of some rows.

    Args:
        names: "block 3 of 12" ..., and TOP last.
        features: of each depth, float32 (N, D).
        seconds: of each row, with reading it.
    """

    names: tuple[str, ...]
    features: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Depth:
    """Scores of the features at one depth; None where the time was up.

    Args:
        name: "block 3 of 12", or the head's input.
        width: of the features.
        linear: of a ridge regression, on rows that it was not fitted on.
        neighbours: of the nearest rows.
        evidence: LogME.
    """

    name: str
    width: int
    linear: float | None = None
    neighbours: float | None = None
    evidence: float | None = None


@dataclass
class Measures:
    """What was found.

    Args:
        metric: of all scores.
        train_rows: of the recipe.
        looked_at: rows of them whose features were computed.
        classes: rows of each class, by name; of regression none.
        depths: the lowest first; the head's input last.
        curve: (rows, score) of the linear probe on the head's input.
        probe: its score with all training rows, foretold by the curve.
        chance: the score of always answering the commonest class; 0 of the other metrics.
        spread: effective rank of the head's input, as a share of what it could be.
        noise: share of labels that a good probe finds wrong; what a weak one confuses counts too.
        seconds_a_row: of reading and the forward pass.
        left_out: what there was no time for.
    """

    metric: str
    train_rows: int
    looked_at: int
    classes: dict[str, int]
    depths: list[Depth]
    curve: list[tuple[int, float]] = field(default_factory=list)
    probe: float = 0.0
    chance: float = 0.0
    spread: float | None = None
    noise: float | None = None
    seconds_a_row: float = 0.0
    left_out: list[str] = field(default_factory=list)

    @property
    def top(self) -> Depth:
        """The head's input."""
        return self.depths[-1]

    @property
    def middle_gain(self) -> float:
        """By how much the best depth below beats the head's input; 0 where none does or none was measured."""
        below = [depth.linear for depth in self.depths[:-1] if depth.linear is not None]
        return max(0.0, max(below, default=0.0) - (self.top.linear or 0.0))

    @property
    def above_chance(self) -> float:
        """The probe's score with all rows, as a share of the way from chance to perfection, 0 to 1."""
        return min(max((self.probe - self.chance) / max(1 - self.chance, 1e-6), 0.0), 1.0)


def targets_of(task: Any) -> np.ndarray:
    """Of the training rows: int64 classes (N,), sets of classes as bool (N, K), float64 numbers (N,) or (N, K)."""
    kinds = {"single_label_classification": np.int64, "multi_label_classification": np.bool_}
    return np.asarray(task.train["label"][:]).astype(kinds.get(task.labels.problem_type, np.float64))


def spread_evenly(targets: np.ndarray, seed: int) -> np.ndarray:
    """All rows in a random order of which every beginning has each class by its share; the beginnings are nested."""
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(targets))
    if targets.ndim > 1 or not np.issubdtype(targets.dtype, np.integer):
        return shuffled
    place = np.empty(len(targets))
    for value in np.unique(targets):
        rows = shuffled[targets[shuffled] == value]
        place[rows] = (np.arange(len(rows)) + generator.random()) / len(rows)
    return np.argsort(place, kind="stable")


def probe_depths(found: Depths, targets: np.ndarray, task: Any, seed: int, until: float) -> Measures:
    """Probes of features that have been read, the most telling first, until the time is up.

    Args:
        found: the features.
        targets: of their rows.
        task: its labels and training rows, for the sizes of the classes.
        seed: of the learning curve's draws.
        until: `time.perf_counter()` after which only the first probe is taken; what would likely end later is left out.
    """
    metric = METRICS[task.labels.problem_type]
    depths = [Depth(name, values.shape[1]) for name, values in zip(found.names, found.features, strict=True)]
    measures = Measures(metric, len(task.train), len(targets), sizes_of_classes(task), depths)
    measures.seconds_a_row = found.seconds
    began = time.perf_counter()
    standard = [standardized(values) for values in found.features]
    probe = ridge(standard[-1], targets)
    longest = time.perf_counter() - began
    measures.top.linear = measures.probe = probe.score
    measures.chance = _chance(targets) if metric == "accuracy" else 0.0
    measures.curve = [(len(targets), probe.score)]
    for name, step in _steps(measures, found, standard, targets, probe, seed):
        began = time.perf_counter()
        if began + longest >= until:
            measures.left_out.append(name)
        else:
            step()
            longest = max(longest, time.perf_counter() - began)
    measures.probe = extrapolated(measures.curve, len(task.train))
    return measures


def _steps(
    measures: Measures, found: Depths, standard: list[np.ndarray], targets: np.ndarray, probe: Probe, seed: int
) -> list[tuple[str, Any]]:
    """(what, how) of everything behind the first probe, in the order of what it tells."""
    top = measures.top

    def curve() -> None:
        points = learning_curve(standard[-1], targets, probe.strength, seed)
        measures.curve = [*points, (len(targets), probe.score)]

    def noise() -> None:
        classes, labels = np.unique(targets, return_inverse=True)
        measures.noise = noisy_share(probe.answers, labels) if len(classes) > 1 else 0.0

    def linear(place: int) -> None:
        measures.depths[place].linear = ridge(standard[place], targets).score

    def nearest(place: int) -> None:
        measures.depths[place].neighbours = neighbours(standard[place], targets)

    def evidence(place: int) -> None:
        measures.depths[place].evidence = log_evidence(found.features[place], targets)

    def spread() -> None:
        measures.spread = effective_rank(found.features[-1])

    below = range(len(measures.depths) - 2, -1, -1)
    last = len(measures.depths) - 1
    steps: list[tuple[str, Any]] = [("the learning curve", curve)]
    steps += [(f"a linear probe of {measures.depths[n].name}", lambda n=n: linear(n)) for n in below]
    steps += [("the effective rank", spread), ("LogME", lambda: evidence(last)), ("kNN", lambda: nearest(last))]
    steps += [("label noise", noise)] if measures.metric == "accuracy" else []
    steps += [(f"LogME of {measures.depths[n].name}", lambda n=n: evidence(n)) for n in below]
    steps += [(f"kNN of {measures.depths[n].name}", lambda n=n: nearest(n)) for n in below]
    assert top is measures.depths[last]
    return steps


def sizes_of_classes(task: Any) -> dict[str, int]:
    """Training rows of each class, by name; of sets of classes, rows that have it; of regression none."""
    labels, names = task.labels, task.labels.names
    if labels.problem_type == "regression":
        return {}
    values = np.asarray(task.train["label"][:])
    counts = np.bincount(values.astype(int), minlength=len(names)) if values.ndim == 1 else values.sum(axis=0)
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _chance(targets: np.ndarray) -> float:
    return float(np.unique(targets, return_counts=True)[1].max() / len(targets))
