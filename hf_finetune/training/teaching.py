"""From the `distill:` section to a Distillation: the teacher is loaded, scored, and asked what can be asked at once."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hf_finetune.console import say
from hf_finetune.data.bands import channels_of
from hf_finetune.errors import UserError
from hf_finetune.evaluation import compute_metrics
from hf_finetune.model.heads import seeded
from hf_finetune.recipes.schema import Distill, Recipe
from hf_finetune.training.agreement import together
from hf_finetune.training.arguments import best_metric, metric_names
from hf_finetune.training.distill import Distillation
from hf_finetune.training.same_pixels import SamePixels
from hf_finetune.training.targets import TargetScale, output_module
from hf_finetune.training.taught_samples import TaughtCollator, TaughtSamples
from hf_finetune.training.teacher import Answers, Teacher, load_teacher

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.strategy import Applied
    from hf_finetune.training.setup import Samples


def teach(
    recipe: Recipe,
    task: TaskData,
    loaded: LoadedModel,
    applied: Applied,
    arguments: TrainingArguments,
    samples: Samples,
    *,
    changed: bool,
    scale: TargetScale | None,
    trust_remote_code: bool,
) -> tuple[Distillation | None, Samples]:
    """What the recipe's teacher gives, and the samples with its answers in them; one line about the teacher is said.

    Args:
        recipe: its distill section; None gives None and the samples as they are.
        task: the data.
        loaded: the student, for its processor.
        applied: the student with its strategy.
        arguments: device, batch size and workers.
        samples: the student's.
        changed: whether training samples are changed or mixed at random.
        scale: of regression targets.
        trust_remote_code: run code that the teacher or a metric brings.

    Raises:
        UserError: no such teacher, or one that cannot teach this.
    """
    settings = recipe.distill
    if settings is None:
        return None, samples
    teacher = together(load_teacher, recipe, task.labels, trust_remote_code)
    _refuse(settings, task)
    output = None if settings.on == "logits" else output_module(applied)
    projection = None if output is None else _projection(output, teacher.width, recipe.seed)
    view = together(_view, loaded, teacher) if changed else None
    value, metric = _score(recipe, task, teacher, arguments, trust_remote_code)
    distillation = Distillation(
        settings,
        task.labels.problem_type,
        digest=teacher.digest,
        revision=teacher.predictor.loaded.revision,
        score={metric: value},
        scale=scale,
        output=output,
        projection=projection,
        teacher=teacher if changed else None,
        view=view,
    )
    if view is None:
        samples, how = _taught(samples, teacher, task, arguments)
    else:
        how = f"it answers each batch as the student sees it, changed at random{_sizes(view)}"
    if projection is not None:
        how += f"; a projection {projection.in_features} -> {projection.out_features} learns"
    say(f"teacher {settings.teacher} scores {metric} {value:.4f} on the validation rows; {how}")
    return distillation, samples


def pin_teacher(recipe: Recipe, distillation: Distillation | None) -> Recipe:
    """The recipe with the commit of the teacher that was really loaded, where it is known."""
    if recipe.distill is None or distillation is None or not distillation.revision:
        return recipe
    return recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"revision": distillation.revision})})


def _taught(samples: Samples, teacher: Teacher, task: TaskData, arguments: TrainingArguments) -> tuple[Samples, str]:
    """The samples with the teacher's answers in those of training, and how they came there, in words."""
    started = time.perf_counter()
    answers = _ask(teacher, task.train, arguments, "teacher, training rows")
    seconds = time.perf_counter() - started
    samples = replace(samples, train=TaughtSamples(samples.train, answers), collate=TaughtCollator(samples.collate))
    return samples, f"answers of {len(task.train):,} rows computed once in {seconds:.0f} s"


def _refuse(settings: Distill, task: TaskData) -> None:
    if task.labels.problem_type == "regression" and settings.temperature != Distill.model_fields["temperature"].default:
        raise UserError("distill.temperature softens classes, and the data is regression: remove it.")


def _projection(output: Any, width: int, seed: int) -> nn.Linear:
    """From the student's features to the teacher's, the same on every process."""
    own = output.in_features if hasattr(output, "in_features") else output.in_channels
    with seeded(seed):
        return nn.Linear(int(own), width)


def _view(loaded: LoadedModel, teacher: Teacher) -> SamePixels:
    for whose, processor in (("student", loaded.processor), ("teacher", teacher.predictor.loaded.processor)):
        if (channels := channels_of(processor)) != 3:
            raise UserError(
                f"distill: the {whose} takes images of {channels} channels, and where training images are changed at "
                "random both must take RGB: use data.augment=none without mixup and cutmix."
            )
    return SamePixels(loaded.processor, teacher.predictor.loaded.processor)


def _sizes(view: SamePixels) -> str:
    (height, width), (tall, wide) = view.sizes
    return "" if (height, width) == (tall, wide) else f", {height}x{width} pixels resized to {tall}x{wide}"


def _score(
    recipe: Recipe, task: TaskData, teacher: Teacher, arguments: TrainingArguments, trust_remote_code: bool
) -> tuple[float, str]:
    """The teacher on the validation rows, by the metric that chooses the checkpoint (the first, where it is loss)."""
    best = best_metric(recipe, task)
    name = metric_names(recipe, task)[0] if best == "loss" else best
    answers = _ask(teacher, task.validation, arguments, "teacher, validation rows")
    values = compute_metrics(
        answers.logits.numpy(),
        np.asarray(task.validation["label"]),
        task.labels.problem_type,
        (name,),
        trust_remote_code=trust_remote_code,
    )
    value = values[name]
    return float("nan") if value is None else float(value), name


def _ask(teacher: Teacher, rows: Any, arguments: TrainingArguments, what: str) -> Answers:
    size, workers = arguments.per_device_eval_batch_size, arguments.dataloader_num_workers
    return teacher.answer_all(rows, torch.device(arguments.device), size, workers, what)
