"""The frozen prefix, run once over a split: straight into the file that is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from hf_finetune.console import warn
from hf_finetune.evaluation.predict import longest_first, take
from hf_finetune.model.border_proof import modes_kept, received
from hf_finetune.model.replay import LENGTH, Replay
from hf_finetune.stopping import deaf_worker
from hf_finetune.training.watchdog import beat

_ON_GPU = 256  # samples at a time, where the memory allows it


class Prefix:
    """Computes what a border receives, for batches of real samples.

    Args:
        replay: the model and its border.
        prepare: batch of the collator -> what the model takes, on its device.
        collate: list of samples -> batch.
        device: where the model is.
        autocast: number format of the pass; None for fp32.
    """

    def __init__(
        self,
        replay: Replay,
        prepare: Callable[[dict[str, Any]], dict[str, Any]],
        collate: Callable[[list[Any]], dict[str, Any]],
        device: torch.device,
        autocast: torch.dtype | None,
    ) -> None:
        self.replay = replay
        self.prepare = prepare
        self.collate = collate
        self.device = device
        self.autocast = autocast

    @property
    def every_token(self) -> bool:
        """Whether a text has a row for each of its tokens."""
        return LENGTH in self.replay.border.shape.sizes

    @torch.no_grad()  # not inference_mode: BEiT keeps tensors of this pass, which a later training could not use
    def __call__(self, batch: dict[str, Any]) -> torch.Tensor:
        """(B, ...) of a batch, or (tokens, ...) of all its texts in a row, without padding."""
        inputs = {name: value for name, value in self.prepare(batch).items() if name != "labels"}
        format = nullcontext() if self.autocast is None else torch.autocast(self.device.type, dtype=self.autocast)
        with format:
            found = received(self.replay, inputs)
        return found[inputs["attention_mask"].bool()] if self.every_token else found

    def of_rows(self, samples: Any, rows: Sequence[int]) -> torch.Tensor:
        """The same for samples by their numbers."""
        return self(self.collate(take(samples, rows)))


def fill(prefix: Prefix, samples: Any, out: torch.Tensor, starts: np.ndarray | None, args: Any, start: int = 0) -> None:
    """Run the prefix over this process's share of a split.

    Args:
        prefix: what runs.
        samples: the real samples.
        out: (rows, ...), shared by the processes of a machine.
        starts: where each text's tokens start in `out`, and the end, (N + 1,); None for one row a sample.
        args: batch size and loader workers.
        start: the row of `out` that is the first sample's.
    """
    model = prefix.replay.model
    order = _own_share(longest_first(samples))
    size = max(args.eval_batch_size, _ON_GPU) if prefix.device.type == "cuda" else args.eval_batch_size
    done = 0
    with modes_kept(model):
        model.eval()
        while done < len(order):
            done += _pass(prefix, samples, order[done:], size, out, starts, args.dataloader_num_workers, start)
            if done < len(order):
                warn(f"The frozen prefix does not fit {size} samples at a time; going on with {size // 2}.")
                size //= 2


def _pass(
    prefix: Prefix,
    samples: Any,
    order: np.ndarray,
    size: int,
    out: torch.Tensor,
    starts: np.ndarray | None,
    workers: int,
    start: int,
) -> int:
    """Run until the end, or until a batch does not fit on the GPU.

    Returns:
        samples done.
    """
    done = 0
    try:
        for rows, batch in _batches(samples, order, size, prefix, workers):
            _put(out, prefix(batch), rows, starts, start)
            done += len(rows)
            beat("the frozen prefix")
    except torch.OutOfMemoryError:
        if size == 1:
            raise
        torch.cuda.empty_cache()
    return done


def _put(out: torch.Tensor, found: torch.Tensor, rows: np.ndarray, starts: np.ndarray | None, start: int) -> None:
    if starts is None:
        out[torch.from_numpy(rows) + start] = found.to("cpu", out.dtype)
        return
    found = found.to("cpu", out.dtype)
    place = 0
    for row in rows:
        length = int(starts[row + 1] - starts[row])
        out[starts[row] : starts[row + 1]] = found[place : place + length]
        place += length


def _own_share(order: np.ndarray) -> np.ndarray:
    """Every n-th batch's worth: the processes of one machine write one file."""
    rank, processes = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return order[rank::processes]


def _batches(
    samples: Any, order: np.ndarray, size: int, prefix: Prefix, workers: int
) -> Iterator[tuple[np.ndarray, Any]]:
    """Batches in this order; for a GPU each is made while the model works on the one before.

    Where the model computes on the CPU, it has every core: a thread beside it takes turns with one of its own, and all
    the others wait for that one.
    """
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    if workers:
        loader: Any = DataLoader(
            Subset(samples, [int(row) for row in order]),
            batch_size=size,
            collate_fn=prefix.collate,
            num_workers=workers,
            worker_init_fn=deaf_worker(None),
            pin_memory=torch.cuda.is_available(),
        )
        yield from zip(parts, loader, strict=True)
    elif prefix.device.type == "cpu":
        for part in parts:
            yield part, prefix.collate(take(samples, part))
    else:
        yield from _ahead(samples, parts, prefix.collate)


def _ahead(
    samples: Any, parts: list[np.ndarray], collate: Callable[[list[Any]], Any]
) -> Iterator[tuple[np.ndarray, Any]]:
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for place, part in enumerate(parts):
            batch = ahead.result() if ahead is not None else collate(take(samples, part))
            if place + 1 < len(parts):
                ahead = pool.submit(lambda rows: collate(take(samples, rows)), parts[place + 1])
            yield part, batch
