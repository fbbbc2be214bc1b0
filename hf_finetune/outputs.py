"""From logits to probabilities and predictions, the same way transformers' pipelines do it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hf_finetune.errors import UserError

KEY = "hf_finetune"  # of config.json: what `Rule` holds
_CELLS = 2**20  # numbers handled at once, so that float64 copies stay small beside the logits


def parts_of(values: np.ndarray, cells: int = _CELLS) -> Iterator[slice]:
    """Rows of values (N, ...) to be handled at once, one run of neighbours after the other."""
    rows = max(1, cells // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        yield slice(start, start + rows)


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite."""
    return all(bool(np.isfinite(values[rows]).all()) for rows in parts_of(values))


def log_normalizer(logits: np.ndarray) -> np.ndarray:
    """Log of the sum of exponentials of each row of logits (N, C), float64 (N,)."""
    out = np.empty(len(logits))
    for part in parts_of(logits):
        rows = logits[part].astype(np.float64)
        top = rows.max(axis=1)
        out[part] = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
    return out


def confidence(logits: np.ndarray) -> np.ndarray:
    """Probability of the likeliest class, (N,)."""
    return np.exp(logits.max(axis=1).astype(np.float64) - log_normalizer(logits))


def probabilities(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Softmax of the logits (N, C) for single labels, sigmoid for multi-label, the values themselves for regression.

    Returns:
        float32 (N, C).
    """
    if problem_type == "regression":
        return np.asarray(logits, dtype=np.float32)
    found = np.empty(logits.shape, dtype=np.float32)
    for part in parts_of(logits):
        rows = logits[part]
        if problem_type == "single_label_classification":
            found[part] = np.exp(rows - log_normalizer(rows)[:, None])
        else:
            small = np.exp(-np.abs(rows.astype(np.float64)))  # of either sign without overflow
            found[part] = np.where(rows >= 0, 1 / (1 + small), small / (1 + small))
    return found


def predictions(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """The decision in each row.

    Returns:
        Single label: class index (N,) int. Multi-label: 0 or 1 for each class (N, C) int, 1 above a probability of
        0.5. Regression: the values (N,) for one target, else (N, T), float32.
    """
    if problem_type == "single_label_classification":
        return logits.argmax(axis=1)
    if problem_type == "multi_label_classification":
        return (logits > 0).astype(np.int64)
    values = np.asarray(logits, dtype=np.float32)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


@dataclass(frozen=True)
class Rule:
    """How a finished model's logits become answers; what `evaluation.calibration` and its like have found.

    It is kept in config.json, and is applied wherever this package answers. Plain transformers does not know it.

    Args:
        temperature: what logits are divided by.
        thresholds: of several labels, the probability above which each is given; empty for 0.5.
        coverage: the chance with which a prediction set holds the right class; None for no sets.
        quantile: a class whose probability is at least 1 - quantile is in the set.
    """

    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    coverage: float | None = None
    quantile: float | None = None

    @classmethod
    def of(cls, config: Any) -> Rule:
        """The rule that a model's config holds.

        Raises:
            UserError: it holds something that is no such rule.
        """
        held = getattr(config, KEY, None)
        if held is None:
            return cls()
        try:
            found = cls(**{**held, "thresholds": tuple(map(float, held.get("thresholds", ())))})
            numbers = [found.temperature, *found.thresholds, *(n for n in (found.coverage, found.quantile) if n)]
            if found.temperature > 0 and np.isfinite(np.asarray(numbers, dtype=np.float64)).all():
                return found
        except (TypeError, ValueError, AttributeError):
            pass
        raise UserError(f"config.json holds a {KEY} that this version cannot read: {held!r}. Remove it, or mend it.")

    def written(self) -> dict[str, Any]:
        """The rule as JSON holds it: what is not as it is without one."""
        held = {name: value for name, value in asdict(self).items() if value != getattr(Rule, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in held.items()}

    def keep(self, config: Any) -> None:
        """Write the rule into a model's config, in place of one that it may have."""
        if held := self.written():
            setattr(config, KEY, held)
        elif hasattr(config, KEY):
            delattr(config, KEY)

    def tempered(self, logits: np.ndarray) -> np.ndarray:
        """Logits (N, C) whose softmax or sigmoid are the probabilities to be given."""
        return logits if self.temperature == 1 else (logits / self.temperature).astype(logits.dtype)

    def decisive(self, tempered: np.ndarray) -> np.ndarray:
        """Tempered logits (N, C), moved so that a label is given where its number is above 0: what metrics take."""
        if not self.thresholds:
            return tempered
        at = np.asarray(self.thresholds, dtype=np.float64)
        return (tempered - np.log(at / (1 - at))).astype(tempered.dtype)

    def decided(self, tempered: np.ndarray, problem_type: str) -> np.ndarray:
        """The decision in each row, as `predictions`."""
        return predictions(self.decisive(tempered), problem_type)

    def sets(self, likely: np.ndarray) -> np.ndarray:
        """Whether each class is in the prediction set, bool (N, C), of probabilities (N, C)."""
        assert self.quantile is not None
        return nonconformity(likely) <= self.quantile


def nonconformity(likely: np.ndarray) -> np.ndarray:
    """How strange each class is for each row: one less its probability, float64 (N, C) of float32."""
    return 1.0 - likely.astype(np.float64)
