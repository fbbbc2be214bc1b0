"""What a training step minimises and what validation reports, of the logits and labels of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hf_finetune.console import say
from hf_finetune.data import TEXT_OF_WINDOW
from hf_finetune.data.streamed import is_streamed
from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import ProblemType, Recipe
from hf_finetune.training.balance import Balance
from hf_finetune.training.class_weights import class_counts, class_shares, class_weights
from hf_finetune.training.losses import Loss, loss_function, training_loss
from hf_finetune.training.multi_task import loss_of_tasks, plain_loss_of_tasks
from hf_finetune.training.r_drop import divergence, draws_at_random

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.strategy import Applied

Features = dict[str, Any]


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Args:
        problem_type: of the labels.
        training: loss of logits and labels in training.
        validation: loss that evaluation reports: the problem type's plain one.
        r_drop: weight of the divergence between two passes; 0 for one pass.
        balance: of the losses of several tasks; the Trainer's callback too.
    """

    problem_type: ProblemType
    training: Loss
    validation: Loss
    r_drop: float = 0.0
    balance: Balance | None = None

    @classmethod
    def plain(cls, problem_type: ProblemType, label_smoothing: float = 0.0) -> Objective:
        """The problem type's plain loss."""
        return cls(problem_type, loss_function(problem_type, label_smoothing), loss_function(problem_type))

    def inputs(self, features: Features, labels: torch.Tensor) -> tuple[Features, torch.Tensor]:
        """A training batch as it goes through the model: twice with R-Drop, as one batch of two halves.

        One pass of 2 N rows, not two of N, because DistributedDataParallel expects one forward for each backward.
        """
        if not self.r_drop:
            return features, labels
        rows = len(features.get(TEXT_OF_WINDOW, labels))
        doubled = {
            name: torch.cat([value, value]) if torch.is_tensor(value) and value.ndim and len(value) == rows else value
            for name, value in features.items()
        }
        if TEXT_OF_WINDOW in features:
            owners = features[TEXT_OF_WINDOW]
            doubled[TEXT_OF_WINDOW] = torch.cat([owners, owners + len(labels)])
        return doubled, torch.cat([labels, labels])

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, training: bool) -> torch.Tensor:
        """The mean loss of a batch; in training, of a batch from `inputs`."""
        if not training:
            return self.validation(logits, labels)
        value = self.training(logits, labels)
        if not self.r_drop:
            return value
        one, other = logits.float().chunk(2)
        return value + self.r_drop * divergence(one, other, self.problem_type)


def build_objective(recipe: Recipe, task: TaskData, applied: Applied) -> Objective:
    """The objective of a recipe's `loss:` section on its data.

    Raises:
        UserError: the loss does not fit the data, a class is named that is none, or R-Drop finds nothing random.
    """
    settings, labels = recipe.loss, task.labels
    if labels.tasks:
        several = loss_of_tasks(recipe, task)
        return Objective(labels.problem_type, several, plain_loss_of_tasks(recipe, task), balance=several.balance)
    smoothing = float(recipe.training.values().get("label_smoothing_factor", 0.0))
    weights, shares = None, None
    if labels.problem_type != "regression" and not is_streamed(task.train):  # what counts classes is refused there
        counts = class_counts(task.train["label"], labels.num_labels)
        weights, shares = class_weights(settings.class_weights, labels, counts), class_shares(counts)
    training = training_loss(settings, labels.problem_type, smoothing, weights, shares)
    if settings.r_drop and not draws_at_random(applied.model):
        raise UserError(
            f"loss.r_drop compares two passes with dropout, and with strategy={recipe.strategy.kind} nothing of "
            f"{recipe.model.checkpoint} that learns has any: set model.dropout (or model.drop_path), or leave it out."
        )
    if settings.kind == "coral":
        say(f"coral takes the classes in this order: {' < '.join(labels.names)}")
    return Objective(labels.problem_type, training, loss_function(labels.problem_type), settings.r_drop)
