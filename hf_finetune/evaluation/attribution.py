"""What mattered to a model's answer: one map an image, one weight a word. Explanations, not proofs.

Texts: gradient x input (Shrikumar et al. 2016, arXiv:1605.01713). Images: attention of every layer, weighted by its
gradient and followed through the layers (Chefer et al. 2021, arXiv:2103.15679; without the gradients it is Abnar and
Zuidema's rollout, arXiv:2005.00928) where the model gives its attentions; else Grad-CAM (Selvaraju et al. 2017,
arXiv:1610.02391) on the last feature map.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn

BATCH = 8  # samples at a time: attentions and their gradients of all layers are in memory


@dataclass
class Attributions:
    """What mattered in each of some samples.

    Args:
        method: its name for people; empty where there is none.
        found: by sample. Images: float32 array (h, w) from 0 to 1. Texts: a list of parts, one or two (of pairs), each
            a list of (piece of the text, weight from -1 to 1); the pieces joined are the text that was read.
        skipped: why some or all samples have none, a sentence; empty where all have.
    """

    method: str = ""
    found: dict[int, Any] = field(default_factory=dict)
    skipped: str = ""


class NotPossible(Exception):
    """The architecture does not allow it; the message is a sentence for the page."""


class _Late(Exception):
    """The time is used up while a model is being asked."""


def goal(logits: torch.Tensor, outputs: slice, answers: Sequence[int], single: bool) -> torch.Tensor:
    """The number (a scalar, summed over samples that do not see each other) whose causes are asked for.

    Args:
        logits: (B, all outputs of the model).
        outputs: those of the task.
        answers: for each sample the output that is explained, counted within the task.
        single: classes exclude each other: the log odds of the answer against all others; else the output itself.
    """
    own = logits[:, outputs].float()
    places = torch.tensor(list(answers), device=own.device)[:, None]
    chosen = own.gather(1, places)[:, 0]
    if single and own.shape[1] > 1:
        return (chosen - own.scatter(1, places, float("-inf")).logsumexp(1)).sum()
    return chosen.sum()


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Eval mode with gradients on; afterwards modes are as before, and no parameter has a gradient of this."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class Deadline:
    """Time that runs out.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        """Whether nothing new should be begun."""
        return time.monotonic() > self._end

    def sentence(self, done: int, wanted: int) -> str:
        """What to say of what was not done."""
        return f"The first {done} of {wanted} samples: the time set aside for this ({self.seconds:.0f} s) was used up."


def in_batches(model: nn.Module, total: int, deadline: Deadline, explain: Callable[[range], None]) -> str:
    """Ask for all samples, batch by batch; a batch that memory does not hold is asked again in halves.

    Whatever else an architecture does not take ends it with a sentence: what is only shown stops nothing.

    Args:
        model: that `explain` runs.
        total: samples.
        deadline: looked at before every batch and before every layer.
        explain: asks for the samples of these numbers and keeps what it finds.

    Returns:
        why some samples have nothing, a sentence; empty where all were asked.
    """
    start, size = 0, BATCH
    try:
        with _watched(model, deadline):
            while start < total:
                rows = range(start, min(start + size, total))
                try:
                    explain(rows)
                except Exception as fault:
                    if len(rows) == 1 or not should_reduce_batch_size(fault):
                        raise
                    size = len(rows) // 2
                else:
                    start = rows.stop
                    continue
                if torch.cuda.is_available():  # out here the fault no longer holds what filled the memory
                    torch.cuda.empty_cache()
    except _Late:
        return deadline.sentence(start, total)
    except NotPossible as reason:
        return str(reason)
    except Exception as fault:
        words = (str(fault).strip().splitlines() or [""])[0][:200]
        which = f"The first {start} of {total} samples" if start else "Nothing of what mattered"
        return f"{which}: asking this model for it failed ({type(fault).__name__}: {words})."
    return ""


@contextmanager
def _watched(model: nn.Module, deadline: Deadline) -> Iterator[None]:
    """Time that runs out in the middle of a batch of a large model ends it at the next layer."""

    def look(*given: Any) -> None:
        if deadline.passed:
            raise _Late

    look()
    hooks = [module.register_forward_pre_hook(look) for module in model.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
