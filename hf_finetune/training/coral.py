"""CORAL (Cao, Mirjalili & Raschka 2020, arXiv:1901.07884) in an output layer that any pipeline reads rightly.

The paper's head has one weight vector w and C - 1 biases b_k; sigmoid(w x + b_k) is the chance that the class is above
k, the loss is the sum of their binary cross-entropies (`loss_terms.coral_table`), and the decision is the number of k
whose chance is above one half. Saved like that, a pipeline would show C - 1 strange labels.

Here the output layer keeps its C class logits z, and the paper's logits are differences of neighbours,
z_{k+1} - z_k = w x + b_k. That holds exactly when the rows of the weight lie on a line, W_c = u + c w, and b_k are the
differences of the bias. `CoralHead` puts the layer there before the first step and after each (a projection). It also
sorts the b_k, as the paper's Theorem 1 says of the optimum: w x + b_k falls with k, so z rises while the chance
is above one half and falls afterwards. The largest z is then the paper's decision, always, and the softmax of z is what
a pipeline reports (an adjacent-categories model with the same thresholds).

CORN (arXiv:2111.08851) is not offered: on C class logits its conditional losses add up to -log p_y, cross-entropy.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.errors import UserError


class CoralHead(TrainerCallback):
    """Keeps an output layer in CORAL's form.

    Args:
        layer: linear, or a 1x1 convolution, with C outputs and biases.

    Raises:
        UserError: the layer has no biases.
    """

    def __init__(self, layer: Any) -> None:
        if getattr(layer, "bias", None) is None or getattr(layer, "weight", None) is None:
            raise UserError(
                "loss.kind=coral needs an output layer with weights and biases, which are its thresholds, and this "
                "model's has none: use model.head.kind=linear with another checkpoint, or another loss."
            )
        self.layer = layer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the new layer in form; what a checkpoint brings is in form, and stays as it is to the bit."""
        if state.global_step == 0:
            put_in_form(self.layer)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After each step."""
        put_in_form(self.layer)


@torch.no_grad()
def put_in_form(layer: Any) -> None:
    """Project an output layer's weight (C, ...) onto rows u + c w, and its bias (C,) onto falling differences."""
    weight, bias = layer.weight, layer.bias
    place = torch.arange(len(weight), device=weight.device, dtype=weight.dtype)
    place = (place - place.mean()).reshape(-1, *[1] * (weight.ndim - 1))
    slope = (place * weight).sum(0, keepdim=True) / (place**2).sum()
    weight.copy_(weight.mean(0, keepdim=True) + place * slope)
    steps = torch.cat([torch.zeros_like(bias[:1]), falling(bias.diff())]).cumsum(0)
    bias.copy_(steps - steps.mean() + bias.mean())


def falling(values: torch.Tensor) -> torch.Tensor:
    """The nearest sequence (M,) that never rises, in least squares; one that never rises comes back as it is.

    By the min-max formula of isotonic regression (Robertson et al. 1988): min over i <= k of max over j >= k of the
    mean of values i to j. M x M, on the device, without a loop that would wait for it.
    """
    if len(values) < 2:
        return values
    count = len(values)
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    first, last = torch.arange(count).unsqueeze(1), torch.arange(count).unsqueeze(0)
    lengths = (last - first + 1).to(values)
    means = (sums[1:].unsqueeze(0) - sums[:-1].unsqueeze(1)) / lengths.clamp(min=1)
    means = means.masked_fill((last < first).to(values.device), -torch.inf)
    best_end = means.flip(1).cummax(1).values.flip(1)  # [i, k]: the largest mean from i to any j >= k
    best_end = best_end.masked_fill((last < first).to(values.device), torch.inf)
    return torch.where((values.diff() <= 0).all(), values, best_end.min(0).values)
