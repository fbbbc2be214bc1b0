"""The validation split is answered once for the same weights: the final scores need no second pass over it.

The last thing of a run is to score its best weights, and those were validated during training. Whether they are still
the same is asked of the weights themselves, so that an average, a unit folded into the head or a merged adapter is
answered anew without anybody having to say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from hf_finetune.evaluation.views import Views
from hf_finetune.training.agreement import as_the_first
from hf_finetune.training.precision import launcher_shards_the_model

if TYPE_CHECKING:
    from hf_finetune.training.prefix_cache import CachedStage, PrefixCache

_MOST_BYTES = 1 << 26  # outputs that are kept, twice: of the best weights, and of those validated last
_AT_ONCE = 1 << 20  # numbers of a weight that are held in double precision


class Answers(NamedTuple):
    """Outputs of a model on the validation split.

    Args:
        weights: `fingerprint` of the model.
        views: of each image.
        stage: what the model started from: features that are kept, or None for real samples.
        found: as the Trainer's own loop gives it.
        prefix: of the names of its metrics.
    """

    weights: torch.Tensor
    views: Views
    stage: CachedStage | None
    found: EvalLoopOutput
    prefix: str

    def are_of(self, weights: torch.Tensor, views: Views, stage: CachedStage | None) -> bool:
        """Whether a pass with these would give them again."""
        return self.views == views and self.stage is stage and torch.equal(self.weights, weights)

    def under(self, prefix: str) -> EvalLoopOutput:
        """With metrics of these names."""
        metrics = {f"{prefix}{name.removeprefix(self.prefix)}": value for name, value in self.found.metrics.items()}
        return self.found._replace(metrics=metrics)


class AnsweredOnce(Trainer):
    """A Trainer that remembers what its best and its latest weights answered on its validation split."""

    tta: Views
    prefix: PrefixCache | None
    _latest: Answers | None = None
    _best: Answers | None = None

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As the Trainer's; of the validation split and weights that have answered it, their answers."""
        rest = (description, prediction_loss_only, ignore_keys, metric_key_prefix)
        cheap = self.prefix is not None and self.prefix.head_alone  # a look at all weights would take longer
        if dataloader.dataset is not self.eval_dataset or cheap or launcher_shards_the_model():
            return super().evaluation_loop(dataloader, *rest)
        if hasattr(self.optimizer, "eval"):  # the weights that are answered with, of an optimizer that has others
            self.optimizer.eval()
        now = fingerprint(self.model), self.tta, self.prefix.stage if self.prefix is not None else None
        same = [known is not None and known.are_of(*now) for known in (self._latest, self._best)]
        latest, best = as_the_first(same)  # statistics of layers are those of the first process
        known = self._latest if latest else self._best if best else None
        if known is not None:
            self.model.eval()
            return known.under(metric_key_prefix)
        found = super().evaluation_loop(dataloader, *rest)
        small = getattr(found.predictions, "nbytes", _MOST_BYTES + 1) <= _MOST_BYTES
        kept = found._replace(metrics=dict(found.metrics))  # the Trainer adds to those that it gets
        self._latest = Answers(*now, kept, metric_key_prefix) if small else None
        return found

    def _determine_best_metric(self, *args: Any, **kwargs: Any) -> bool:
        if is_best := super()._determine_best_metric(*args, **kwargs):
            self._best = self._latest
        return is_best


@torch.no_grad()
def fingerprint(model: nn.Module) -> torch.Tensor:
    """Sum and sum of squares of each parameter and buffer, (T, 2), in double precision where there is one."""
    held = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
    sums = [_sums(tensor) for tensor in held if tensor.numel()]
    return torch.stack([each.to(sums[0].device) for each in sums]).cpu() if sums else torch.zeros(0, 2)


def _sums(tensor: torch.Tensor) -> torch.Tensor:
    """Sum and sum of squares, (2,)."""
    found = torch.zeros(2, dtype=torch.float32 if tensor.device.type == "mps" else torch.float64, device=tensor.device)
    for part in tensor.reshape(-1).split(_AT_ONCE):
        values = part.to(found.dtype)
        found += torch.stack([values.sum(), values.square().sum()])
    return found
