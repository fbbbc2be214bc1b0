"""Small classifiers and regressors on fixed features, in closed form: what a linear layer or neighbours would answer.

Every score is of rows that were left out. All work on one decomposition of the features; nothing is trained by steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_finetune.choice.logme import columns_of, is_of_classes

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the ridge, as shares of the features' mean squared singular value
_NEIGHBOURS = (1, 5, 20)
_DRAWS = 3  # of each subset of the learning curve
_LEAST = 8  # rows of a subset
_STEEPEST = 0.7  # error ~ rows ** -exponent


@dataclass(frozen=True)
class Probe:
    """A ridge regression on features, scored on rows that it was not fitted on.

    Args:
        score: accuracy of classes, micro F1 of sets of classes, R2 of numbers.
        answers: of each row left out, (N, K), in the order of `columns_of`.
        strength: of STRENGTHS, the one with the smallest squared error.
    """

    score: float
    answers: np.ndarray
    strength: float


def standardized(features: np.ndarray) -> np.ndarray:
    """Each column with mean 0 and variance 1, float64; a constant column becomes 0."""
    features = np.asarray(features, dtype=np.float64)
    scale = features.std(axis=0)
    return (features - features.mean(axis=0)) / np.where(scale > 1e-12, scale, 1.0)


def ridge(features: np.ndarray, targets: np.ndarray) -> Probe:
    """Ridge regression of the targets (of classes: zeros and ones), every row left out once.

    The answer of a row that was left out follows from the fit on all rows and the row's leverage, exactly and without
    another fit (Allen 1974, "The relationship between variable selection and data augmentation"); the strength is the
    one with the smallest error so.

    Args:
        features: (N, D), standardized.
        targets: (N,) integers for classes; (N, K) booleans for sets of classes; float for numbers, (N,) or (N, K).
    """
    wanted = columns_of(targets)
    mean = wanted.mean(axis=0)
    left, values, _ = np.linalg.svd(features, full_matrices=False)
    squares, inside = values**2, left.T @ (wanted - mean)
    best: tuple[float, float, np.ndarray] | None = None
    for share in STRENGTHS:
        shrunk = squares / (squares + share * max(squares.mean(), 1e-12))
        fitted = left @ (shrunk[:, None] * inside) + mean
        leverage = np.minimum((left**2) @ shrunk + 1 / len(features), 1 - 1e-6)[:, None]
        answers = (fitted - leverage * wanted) / (1 - leverage)
        error = float(((answers - wanted) ** 2).mean())
        if best is None or error < best[0]:
            best = error, share, answers
    assert best is not None
    return Probe(score_of(best[2], targets), best[2], best[1])


def score_of(answers: np.ndarray, targets: np.ndarray) -> float:
    """Accuracy of classes (the largest answer), micro F1 of sets of classes, R2 of numbers (mean over targets).

    Numbers may all be 0 or 1, and there may be one class alone: it is the type of the targets that tells.
    """
    if is_of_classes(targets):
        return float((np.unique(targets)[answers.argmax(axis=1)] == targets).mean())
    wanted = columns_of(targets)
    if targets.dtype == bool:
        found = answers > 0.5
        right = float((found & (wanted > 0.5)).sum())
        return 2 * right / max(float(found.sum() + wanted.sum()), 1.0)
    spread = ((wanted - wanted.mean(axis=0)) ** 2).sum(axis=0)
    return float((1 - ((answers - wanted) ** 2).sum(axis=0) / np.where(spread > 0, spread, 1.0)).mean())


def neighbours(features: np.ndarray, targets: np.ndarray) -> float:
    """Score of the mean target of the nearest rows by cosine, without the row itself; the best of 1, 5 and 20.

    Args:
        features: (N, D), standardized.
        targets: as for `ridge`.
    """
    wanted = columns_of(targets)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    near = unit @ unit.T
    np.fill_diagonal(near, -np.inf)
    counts = [count for count in _NEIGHBOURS if count < len(features)] or [1]
    most = min(max(counts), len(features) - 1)
    if most < 1:
        return 0.0
    order = np.argsort(-near, axis=1, kind="stable")[:, :most]
    return max(score_of(wanted[order[:, :count]].mean(axis=1), targets) for count in counts)


def learning_curve(
    features: np.ndarray, targets: np.ndarray, strength: float, seed: int
) -> tuple[tuple[int, float], ...]:
    """(rows, score) of the ridge regression fitted on an eighth, a quarter and half of the rows, scored on the others.

    Subsets of a draw are nested; scores are means over three draws.

    Args:
        features: (N, D), standardized.
        targets: as for `ridge`.
        strength: of the ridge, as in `Probe`.
        seed: of the draws.
    """
    rows, width = features.shape
    products = features @ features.T
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(rows) for _ in range(_DRAWS)]

    def mean_score(size: int) -> float:
        weight = strength * float(np.trace(products)) / rows * size / min(size, width)
        return float(np.mean([_held_out(products, targets, order[:size], order[size:], weight) for order in orders]))

    return tuple((size, mean_score(size)) for size in (rows // 8, rows // 4, rows // 2) if size >= _LEAST)


def _held_out(products: np.ndarray, targets: np.ndarray, taken: np.ndarray, left: np.ndarray, weight: float) -> float:
    """Score on the rows that are left of a ridge regression fitted, in its dual form, on those that are taken."""
    wanted = columns_of(targets)
    mean = wanted[taken].mean(axis=0)
    inside = products[np.ix_(taken, taken)] + max(weight, 1e-9) * np.eye(len(taken))
    answers = products[np.ix_(left, taken)] @ np.linalg.solve(inside, wanted[taken] - mean) + mean
    if is_of_classes(targets):
        return float((np.unique(targets)[answers.argmax(axis=1)] == targets[left]).mean())
    return score_of(answers, targets[left])


def extrapolated(curve: Sequence[tuple[int, float]], rows: int) -> float:
    """The score with so many rows, its error falling as a power of them (Hestness et al. 2017, arXiv:1712.00409).

    The exponent is fitted to the curve and bounded (0 to 0.7); the last point is what it goes on from.

    Args:
        curve: (rows, score), growing; one point is taken as it is.
        rows: at least those of the last point, else its score is given back.
    """
    last_rows, last = curve[-1]
    if len(curve) < 2 or rows <= last_rows:
        return last
    sizes = np.log([size for size, _ in curve])
    errors = np.log([max(1 - score, 1e-3) for _, score in curve])
    slope = float(np.polyfit(sizes, errors, 1)[0])
    exponent = min(max(-slope, 0.0), _STEEPEST)
    return 1 - (1 - last) * (last_rows / rows) ** exponent


def effective_rank(features: np.ndarray) -> float:
    """The share of directions that the features spread over, 0 to 1; 1 where they are isotropic.

    exp(entropy of the spectrum) over the number of directions there could be (Roy and Vetterli 2007, "The effective
    rank").

    Args:
        features: (N, D), centred here.
    """
    centred = features - features.mean(axis=0)
    squares = np.linalg.svd(centred, compute_uv=False) ** 2
    most = min(len(features) - 1, features.shape[1])
    if most < 1 or squares.sum() <= 0:
        return 0.0
    shares = squares[squares > 0] / squares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()) / most)


def noisy_share(answers: np.ndarray, labels: np.ndarray) -> float:
    """The share of labels that are likely wrong, by confident learning (Northcutt et al. 2021, arXiv:1911.00068).

    A row counts where it is decided otherwise, and a class that is not its own is at least as probable as that class
    is, on average, in its own rows, and more so than all others that are.
    `hf-finetune doctor` names the rows, by cleanlab.

    Args:
        answers: of rows left out, (N, K) with a column for each class; the largest is the decision.
        labels: (N,) columns of the rows' own classes.
    """
    likely = _calibrated(answers, labels)
    rows = np.arange(len(labels))
    own = likely[rows, labels]
    level = np.array([own[labels == k].mean() if (labels == k).any() else 2.0 for k in range(likely.shape[1])])
    above = np.where(likely >= level, likely, -1.0)
    found = above.argmax(axis=1)
    wrong = (above.max(axis=1) >= 0) & (found != labels) & (likely.argmax(axis=1) != labels)
    return float(wrong.mean())


def _calibrated(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities of the answers by a softmax whose temperature has the least log loss on the labels."""
    best: tuple[float, np.ndarray] | None = None
    for sharpness in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0):
        scaled = sharpness * (answers - answers.max(axis=1, keepdims=True))
        likely = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
        loss = float(-np.log(np.maximum(likely[np.arange(len(labels)), labels], 1e-12)).mean())
        if best is None or loss < best[0]:
            best = loss, likely
    assert best is not None
    return best[1]
