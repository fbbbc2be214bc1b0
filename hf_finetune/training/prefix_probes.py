"""The few rows by which a frozen prefix is tried, and what is kept of it is looked at again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.evaluation.predict import take

if TYPE_CHECKING:
    from hf_finetune.training.setup import Samples
    from hf_finetune.training.trainer import FinetuneTrainer


def probe_rows(samples: Any) -> list[int]:
    """Three rows from all over a split; of texts the longest among them."""
    count = len(samples)
    rows = [0, count // 2, count - 1]
    lengths = getattr(samples, "lengths", None)
    if lengths is not None:
        longest = int(np.argmax(lengths))
        rows = [*[row for row in rows if row != longest][:2], longest]
    return rows


def probes(real: Samples, trainer: FinetuneTrainer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two batches of unlike size, as the model takes them: two samples and three, of texts also of another length."""
    items = take(real.train, probe_rows(real.train))
    shorter = [
        {name: value[: max(2, len(value) // 2)] if isinstance(value, list) else value for name, value in item.items()}
        for item in items[:2]
    ]
    small, large = real.collate(shorter), real.collate(items)
    for batch in (small, large):
        batch.pop("labels", None)
    if "input_ids" in small and small["input_ids"].shape[1] == large["input_ids"].shape[1]:
        width = int(small["attention_mask"].sum(1).max()) - 1  # narrower than the other, whatever they hold
        small = {name: value[:, :width] for name, value in small.items()}
    return trainer._prepare_inputs(small), trainer._prepare_inputs(large)
