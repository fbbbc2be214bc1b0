"""Several tasks as the Trainer sees them: one loss of packed labels, and the units of the targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.task_labels import TaskLabels
from hf_finetune.errors import UserError
from hf_finetune.evaluation.task_scores import task_scores
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.balance import Balance, Equal, Uncertainty
from hf_finetune.training.losses import Loss, loss_function, training_loss
from hf_finetune.training.mixed_sources import order_of_sources
from hf_finetune.training.precision import launcher_shards_the_model
from hf_finetune.training.targets import TargetScale

if TYPE_CHECKING:
    from hf_finetune.data import TaskData


@dataclass(frozen=True)
class TaskLoss:
    """One task's part of a batch.

    Args:
        task: where its labels and outputs are.
        loss: mean loss of its labelled rows, of their outputs and labels.
        share: of the rows that training draws, those with a label; 1 for a plain mean over the labelled rows.
    """

    task: TaskLabels
    loss: Loss
    share: float | None = None

    def __call__(self, logits: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, of logits (N, C) and packed labels (N, W).

        With a share it is the sum over the labelled rows divided by the N x share of them that there are on average,
        and not by how many this batch happens to have: so accumulated batches and several processes add up to what one
        large batch gives, and each labelled row counts the same.
        """
        outputs = logits[:, self.task.outputs]
        rows = self.task.labelled(packed)
        labelled = int(rows.sum())
        if labelled == 0:
            return outputs.float().sum() * 0.0  # DDP and the optimizer expect a gradient, if only of zeros
        labels = packed[rows][:, self.task.columns]
        value = self.loss(outputs[rows], labels[:, 0].long() if self.task.is_class else labels)
        return value if self.share is None else value * (labelled / (len(packed) * self.share))


@dataclass(frozen=True)
class TasksLoss:
    """The loss of a batch of several tasks, of logits (N, C) and packed labels (N, W)."""

    terms: tuple[TaskLoss, ...]
    balance: Balance

    def __call__(self, logits: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
        """One number, for the gradient or the log."""
        return self.balance(torch.stack([term(logits, packed) for term in self.terms]))


def loss_of_tasks(recipe: Recipe, task: TaskData) -> TasksLoss:
    """What training minimises.

    Raises:
        UserError: a loss does not fit its labels, or FSDP or DeepSpeed shards what `loss.balance` learns beside.
    """
    smoothing = float(recipe.training.values().get("label_smoothing_factor", 0.0))
    if smoothing and not any(part.is_class for part in task.labels.tasks):
        raise UserError("training.label_smoothing_factor is for classes, and no task has such labels: remove it.")
    if recipe.loss.balance != "fixed" and launcher_shards_the_model():
        raise UserError(
            f"loss.balance={recipe.loss.balance} is kept beside the model, and this accelerate config (FSDP or "
            "DeepSpeed) shards it. Use accelerate_configs/multi_gpu.yaml, or loss.balance=fixed."
        )
    shares = _shares(task)
    terms = []
    for part in task.labels.tasks:
        settings = recipe.loss.model_copy(update={"kind": recipe.tasks[part.name].loss})
        try:
            loss = training_loss(settings, part.space.problem_type, smoothing if part.is_class else 0.0)
        except UserError as error:
            raise UserError(str(error).replace("loss.kind", f"tasks.{part.name}.loss")) from None
        terms.append(TaskLoss(part, loss, shares[part.name]))
    return TasksLoss(tuple(terms), _balance(recipe, task))


def plain_loss_of_tasks(recipe: Recipe, task: TaskData) -> TasksLoss:
    """What validation reports: the mean of each task's plain loss over its labelled rows, with the fixed weights."""
    parts = task.labels.tasks
    terms = tuple(TaskLoss(part, loss_function(part.space.problem_type)) for part in parts)
    return TasksLoss(terms, Balance([p.name for p in parts], [recipe.tasks[p.name].weight for p in parts]))


def _balance(recipe: Recipe, task: TaskData) -> Balance:
    parts = task.labels.tasks
    names, weights = [part.name for part in parts], [recipe.tasks[part.name].weight for part in parts]
    if recipe.loss.balance == "uncertainty":
        factors = [2.0 if part.space.problem_type == "regression" else 1.0 for part in parts]
        return Uncertainty(names, weights, factors)
    if recipe.loss.balance == "equal":
        return Equal(names, weights, [_untrained(part.space) for part in parts])
    return Balance(names, weights)


def _untrained(space: LabelSpace) -> float:
    """The loss of a head that knows nothing: of even probabilities, or of the targets' mean."""
    if space.problem_type == "regression":
        return 1.0
    return math.log(space.num_labels if space.problem_type == "single_label_classification" else 2)


def _shares(task: TaskData) -> dict[str, float]:
    """Of the rows that training draws, the share that has each task's label."""
    packed = np.asarray(task.train["label"][:])
    chance = np.full(len(packed), 1 / len(packed))
    if (order := order_of_sources(task, 0)) is not None:
        rates = order.rates
        chance = np.concatenate([np.full(n, rate / n) for n, rate in zip(order.sizes, rates, strict=True)])
    return {part.name: float(chance[part.labelled(packed)].sum()) for part in task.labels.tasks}


def tasks_in_words(task: TaskData) -> list[str]:
    """A line for each task, what it tells and how many training rows say so, and one for data sets that are mixed."""
    packed = np.asarray(task.train["label"][:])
    lines = []
    for part in task.labels.tasks:
        names = ", ".join(part.space.names[:8]) + (", ..." if part.space.num_labels > 8 else "")
        kind = part.space.problem_type.replace("_", " ")
        what = kind if part.space.problem_type == "regression" else f"{kind}, {part.space.num_labels} classes"
        lines.append(f"  {part.name} ({int(part.labelled(packed).sum()):,} labelled)  {what}: {names}")
    if (order := order_of_sources(task, 0)) is not None:
        each = ", ".join(f"{count:,} of {size:,}" for count, size in zip(order.counts, order.sizes, strict=True))
        lines.append(f"  an epoch draws {len(order):,} rows: {each} of the data sets in turn")
    return lines


# --- units -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TasksScale(TargetScale):
    """As `TargetScale`, of packed labels (N, W) and the outputs (N, C) of all tasks; classes are left as they are.

    Args:
        mean, std: of the columns of labels, (W,).
        outputs: the same of the outputs, (C,).
        scales: of each regression task, by name.
    """

    outputs: TargetScale
    scales: dict[str, TargetScale]

    def natural(self, scores: torch.Tensor) -> torch.Tensor:
        """Outputs (N, C) with numbers in the targets' own units."""
        return self.outputs.natural(scores)

    def fold_into(self, output: Any) -> None:
        """Change the heads of the regression tasks so that they give the targets' own units."""
        for name, scale in self.scales.items():
            scale.fold_into(output.of(name).output)


def scale_of_tasks(task: TaskData) -> TasksScale | None:
    """The scales of the regression tasks' targets; None without such tasks."""
    packed = np.asarray(task.train["label"][:])
    width, outputs = packed.shape[1], task.labels.num_labels
    labels, answers = (TargetScale(torch.zeros(n), torch.ones(n)) for n in (width, outputs))
    scales = {}
    for part in task.labels.tasks:
        if part.space.problem_type == "regression":
            scale = scales[part.name] = TargetScale.of(part.of(packed[part.labelled(packed)]))
            for whole, place in ((labels, part.columns), (answers, part.outputs)):
                whole.mean[place], whole.std[place] = scale.mean, scale.std
    return TasksScale(labels.mean, labels.std, answers, scales) if scales else None


def validation_of_tasks(
    recipe: Recipe, task: TaskData, scale: TargetScale | None, trust_remote_code: bool
) -> Callable[[Any], dict[str, float]]:
    """(logits, packed labels) -> metrics: those of each task, their mean score, the loss of each and of all."""
    plain = plain_loss_of_tasks(recipe, task)

    def compute(prediction: Any) -> dict[str, float]:
        logits, labels = torch.as_tensor(prediction.predictions), torch.as_tensor(prediction.label_ids)
        standard, targets = logits, labels
        if isinstance(scale, TasksScale):
            standard, targets = scale.outputs.standard(logits), scale.standard(labels)
        losses = torch.stack([term(standard, targets) for term in plain.terms])
        scores = task_scores(
            prediction.predictions, prediction.label_ids, recipe, task.labels.tasks, trust_remote_code=trust_remote_code
        )
        each = {f"{term.task.name}_loss": value.item() for term, value in zip(plain.terms, losses, strict=True)}
        return {"loss": plain.balance(losses).item(), **scores, **each}

    return compute
