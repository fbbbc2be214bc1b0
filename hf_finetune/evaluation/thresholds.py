"""A threshold of its own for each of several labels: the one with the best F1 on validation.

F1 is best at a threshold that is not one half but half of the F1 that is reached (Lipton, Elkan and Naryanaswamy 2014,
arXiv:1402.1892); at 0.5 a rare label is hardly ever given. A threshold is chosen among those between two validation
rows, so that of a label with few positive rows hangs on little.
"""

from __future__ import annotations

import numpy as np

_EDGE = 1e-6  # thresholds keep this distance from 0 and 1


def best_thresholds(logits: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """A probability for each label; 0.5 where none has a better F1 than that.

    Args:
        logits: (N, C) of validation rows.
        labels: (N, C) of 0 and 1.
    """
    return tuple(_best(logits[:, label].astype(np.float64), labels[:, label] > 0.5) for label in range(logits.shape[1]))


def _best(scores: np.ndarray, positive: np.ndarray) -> float:
    if not positive.any() or not np.isfinite(scores).all():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(positive[order])
    given = np.arange(1, len(ranked) + 1)
    f1 = 2 * hits / (given + positive.sum())
    below = np.append(ranked[1:], ranked[-1] - 2.0)  # the score that is no longer given
    f1[ranked == below] = -1.0  # no threshold lies between equal scores
    best = int(f1.argmax())
    plain = scores > 0
    if f1[best] <= 2 * (plain & positive).sum() / max(1, plain.sum() + positive.sum()):
        return 0.5
    middle = (ranked[best] + below[best]) / 2
    return float(np.clip(1 / (1 + np.exp(-np.clip(middle, -500, 500))), _EDGE, 1 - _EDGE))
