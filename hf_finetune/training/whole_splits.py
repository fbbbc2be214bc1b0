"""Evaluation sees every sample, with the same statistics on every rank, and answers in the split's own order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import EvalPrediction, Trainer

from hf_finetune.evaluation.predict import longest_first
from hf_finetune.training.precision import launcher_shards_the_model


class WholeSplits(Trainer):
    """A Trainer whose options of training loaders are for training alone."""

    not_finite = np.zeros(0, np.int64)  # rows of the split evaluated last whose outputs are no numbers

    def _get_dataloader(
        self, dataset: Any, description: str, batch_size: int, *args: Any, is_training: bool = False, **kwargs: Any
    ) -> Any:
        """The Trainer's loader; `dataloader_drop_last` is for training: it would leave out evaluation samples."""
        if not is_training and hasattr(dataset, "__len__"):
            batch_size = least_padded(len(dataset), batch_size, self.args.world_size)
        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(dataset, description, batch_size, *args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_eval_sampler(self, eval_dataset: Dataset[Any]) -> torch.utils.data.Sampler[int] | None:
        """Texts longest first, all else in the split's own order, on any number of processes."""
        return InOrder(longest_first(eval_dataset))

    def evaluation_loop(self, dataloader: DataLoader[Any], *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; metrics are computed of, and predictions given back in, the split's own order."""
        if self.args.world_size > 1 and not launcher_shards_the_model():
            # BatchNorm statistics differ from rank to rank; those of rank 0 are the ones that get saved.
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        order, compute = longest_first(dataloader.dataset), getattr(self, "compute_metrics", None)
        whole: dict[str, Any] = {}

        def join(predictions: Any, label_ids: Any) -> None:
            whole["predictions"], whole["label_ids"] = in_order(predictions, order), in_order(label_ids, order)

        def of_the_split(found: EvalPrediction) -> dict[str, float]:
            join(found.predictions, found.label_ids)
            outputs = whole["predictions"]
            self.not_finite = np.flatnonzero(~np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1))
            return compute(EvalPrediction(**whole))  # type: ignore[misc]

        # Left to itself the Trainer copies all that it has every few batches: of N rows some N squared.
        joined = self.args.eval_do_concat_batches
        self.args.eval_do_concat_batches = False
        self.compute_metrics = None if compute is None else of_the_split
        try:
            found: Any = super().evaluation_loop(dataloader, *args, **kwargs)
        finally:
            self.args.eval_do_concat_batches, self.compute_metrics = joined, compute
        if not whole:
            join(found.predictions, found.label_ids)
        return found._replace(**whole)


def least_padded(rows: int, batch_size: int, processes: int) -> int:
    """The batch size, at most the given one, with which processes compute the fewest rows twice.

    accelerate gives every process whole batches, the last ones filled up with rows that others have: of 64 rows in
    batches of 256 two processes would compute 512.
    """
    if processes < 2 or rows < 1:
        return batch_size
    batches = math.ceil(rows / (batch_size * processes))
    return math.ceil(rows / (batches * processes))


def in_order(parts: list[np.ndarray] | None, order: np.ndarray) -> np.ndarray | None:
    """Rows that came in the order of their numbers (N,), as one array in the split's own order.

    The parts are taken out of their list one by one, so that there is never more than the whole and one of them.

    Raises:
        RuntimeError: there are more rows, or fewer.
    """
    if not parts:
        return None
    found = np.empty((len(order), *parts[0].shape[1:]), parts[0].dtype)
    end = len(order)
    while parts:
        part = parts.pop()
        if len(part) > end:
            raise RuntimeError(f"Evaluation gave more than {len(order)} rows: some came twice.")
        found[order[end - len(part) : end]] = part
        end -= len(part)
    if end:
        raise RuntimeError(f"Evaluation gave {len(order) - end} of {len(order)} rows.")
    return found


class InOrder(torch.utils.data.Sampler[int]):
    """Row numbers as they are given.

    Args:
        rows: (N,).
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows.tolist())
