"""Logits of a model for any number of samples, in one process. Imported late: everything in here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from hf_finetune.console import is_muted, warn
from hf_finetune.data import normalized
from hf_finetune.errors import UserError
from hf_finetune.evaluation.products import fast_products
from hf_finetune.evaluation.read import read
from hf_finetune.evaluation.views import Views
from hf_finetune.model.attention import fast_attention


def best_device() -> torch.device:
    """The GPU where there is one (CUDA, then Apple's), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def predict_logits(
    model: nn.Module,
    samples: Any,
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
    batch_size: int = 32,
    device: torch.device | str | None = None,
    progress: str | None = None,
    tta: Views = "none",
) -> np.ndarray:
    """Logits in the order of the samples.

    Each batch's logits leave the device at once, so that its memory does not grow with samples x classes. A batch that
    does not fit on a GPU is halved, and so are those after it. Samples run `longest_first`.

    Args:
        model: a classification model; left on `device`, in the mode it was in.
        samples: a torch data set of inputs with a length; "labels" in them are ignored.
        collate: list of samples -> batch.
        batch_size: samples at a time.
        device: where to run; the best one there is if None.
        progress: words beside a progress bar on standard error; no bar if None.
        tta: views of each image whose logits are averaged.

    Returns:
        float32 (N, C).

    Raises:
        UserError: a single sample does not fit on the device.
    """
    device = torch.device(device) if device is not None else best_device()
    model.to(device)
    order = longest_first(samples)
    logits: np.ndarray | None = None
    done = 0
    with (
        _evaluating(model),
        fast_products(),
        fast_attention(model, batch_size=batch_size),
        tqdm(total=len(order), desc=progress, disable=progress is None or is_muted(), unit="sample") as bar,
    ):
        while done < len(order):
            rows = order[done : done + batch_size]
            batch = collate(take(samples, rows))
            try:
                found = _forward(model, batch, device, tta, batch_size)
            except torch.cuda.OutOfMemoryError:
                batch_size = _halved(batch, batch_size, device)
                continue
            if logits is None:
                logits = np.empty((len(order), found.shape[1]), dtype=np.float32)
            logits[rows] = found
            done += len(rows)
            bar.update(len(rows))
    if logits is None:
        raise UserError("There is nothing to predict: no samples were given.")
    return logits


def longest_first(samples: Any) -> np.ndarray:
    """The order (N,) in which samples are read: texts of like length together, the longest first; images as they are.

    Batches of like length need little padding, and the largest comes when there is still nothing to lose.
    """
    lengths = getattr(samples, "lengths", None)
    return np.arange(len(samples)) if lengths is None else np.argsort(-np.asarray(lengths), kind="stable")


def take(samples: Any, rows: Sequence[int] | np.ndarray) -> Any:
    """Samples by their numbers, as a collator takes them: read together where they can be, else one by one."""
    numbers = [int(row) for row in rows]
    return samples.__getitems__(numbers) if hasattr(samples, "__getitems__") else [samples[n] for n in numbers]


@torch.no_grad()  # not inference_mode: BEiT keeps tensors of this pass, which a later training could not use
def _forward(
    model: nn.Module, batch: dict[str, torch.Tensor], device: torch.device, tta: Views, at_once: int
) -> np.ndarray:
    inputs = normalized({name: tensor.to(device) for name, tensor in batch.items() if name != "labels"})
    logits: np.ndarray = read(model, inputs, tta, at_once).logits.float().cpu().numpy()
    return logits


def _halved(batch: dict[str, torch.Tensor], batch_size: int, device: torch.device) -> int:
    """The batch size after one that did not fit; a UserError where it was one sample."""
    # A single text in windows is still read batch_size windows at a time.
    tried = min(batch_size, len(next(iter(batch.values()))))
    if tried == 1:
        raise UserError(f"One sample alone does not fit into the memory of {device}; use the CPU.") from None
    torch.cuda.empty_cache()
    warn(f"A batch of {tried} does not fit into the memory of {device}; going on with {tried // 2}.")
    return tried // 2


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
