"""From data, model and strategy to a Trainer that is ready to start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import TrainingArguments

from hf_finetune.data import TextCollator, collate_images, image_samples, text_samples
from hf_finetune.data.streamed import known_targets
from hf_finetune.data.streamed_samples import streamed_or_none
from hf_finetune.evaluation import compute_metrics
from hf_finetune.recipes.optimizer_names import PLAIN_OPTIMIZERS
from hf_finetune.recipes.rates import rate_in_words
from hf_finetune.recipes.schema import Recipe, TextAugment
from hf_finetune.training.arguments import metric_names
from hf_finetune.training.batch_rows import names_of_rows
from hf_finetune.training.fits import fit_in_words
from hf_finetune.training.head_checks import weight_decays
from hf_finetune.training.losses import loss_function, mean_loss
from hf_finetune.training.mixing import Mixing, changes_in_words
from hf_finetune.training.multi_task import scale_of_tasks, tasks_in_words, validation_of_tasks
from hf_finetune.training.objective import build_objective
from hf_finetune.training.onlooker import TellsOnlooker, current
from hf_finetune.training.optimizers import plain_optimizer
from hf_finetune.training.precision import NumberFormat, Precision
from hf_finetune.training.random_changes import changed_on_device, image_augment
from hf_finetune.training.rates_log import RatesLog
from hf_finetune.training.reporting import RecipeAsConfig
from hf_finetune.training.row_order import order_of_rows
from hf_finetune.training.step_callbacks import callbacks_of_steps
from hf_finetune.training.targets import TargetScale, scale_of
from hf_finetune.training.teaching import teach
from hf_finetune.training.trainer import FinetuneTrainer

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.strategy import Applied


@dataclass(frozen=True)
class Samples:
    """The splits as the model takes them.

    Args:
        held_out: the fold that does not train.
        pool: makes samples of the rows that all folds have in common; None without folds.
    """

    train: Dataset[Any]
    validation: Dataset[Any]
    test: Dataset[Any] | None
    collate: Callable[[list[Any]], dict[str, torch.Tensor]]
    held_out: Dataset[Any] | None = None
    pool: Callable[[], Dataset[Any]] | None = None

    @property
    def splits(self) -> tuple[Dataset[Any] | None, ...]:
        """By number: train, validation, test, the fold that is held out."""
        return self.train, self.validation, self.test, self.held_out


def make_samples(recipe: Recipe, task: TaskData, loaded: LoadedModel, device: torch.device) -> Samples:
    """Preprocess as the checkpoint was: its image processor or tokenizer, and augmentation where it is on.

    Args:
        recipe: its data section.
        task: the data.
        loaded: the checkpoint, for its processor.
        device: that will train.
    """
    plain: Callable[[Any], Dataset[Any]]
    if recipe.task == "text-classification":
        plain = partial(_texts, recipe, task, loaded)
        train = streamed_or_none(recipe, task.train, loaded.processor, recipe.data.augment)
        train = train or _texts(recipe, task, loaded, task.train, recipe.data.augment)
        collate = TextCollator(loaded.processor)
    else:
        augment = image_augment(recipe, task)
        on_device = changed_on_device(recipe, augment, device)
        plain, collate = partial(image_samples, processor=loaded.processor), collate_images  # type: ignore[assignment]
        train = streamed_or_none(recipe, task.train, loaded.processor, augment, on_device)
        train = train or image_samples(
            task.train, loaded.processor, augment=augment, seed=recipe.seed, on_device=on_device
        )
    return Samples(
        train,
        plain(task.validation),
        None if task.test is None else plain(task.test),
        collate,
        None if task.held_out is None else plain(task.held_out),
        None if task.pool is None else partial(plain, task.pool),
    )


def _texts(recipe: Recipe, task: TaskData, loaded: LoadedModel, split: Any, augment: Any = None) -> Dataset[Any]:
    return text_samples(
        split,
        loaded.processor,
        max_length=recipe.data.max_length,
        window_overlap=recipe.data.window_overlap if recipe.data.long_text == "windows" else None,
        augment=augment if isinstance(augment, TextAugment) else None,
        seed=recipe.seed,
        problem_type=task.labels.problem_type,
    )


def build_trainer(
    recipe: Recipe,
    task: TaskData,
    loaded: LoadedModel,
    applied: Applied,
    arguments: TrainingArguments,
    samples: Samples,
    precision: Precision,
    trust_remote_code: bool,
) -> FinetuneTrainer:
    """The Trainer of a run."""
    problem = task.labels.problem_type
    scale: TargetScale | None = scale_of_tasks(task) if task.labels.tasks else None
    if problem == "regression":
        scale = scale_of(np.asarray(known_targets(task.train)), applied, loaded.fresh)
    mixing = Mixing.of(recipe, task.labels)
    sampler = order_of_rows(recipe, task, arguments, samples)
    distillation, samples = teach(
        recipe,
        task,
        loaded,
        applied,
        arguments,
        samples,
        changed=image_augment(recipe, task) is not None or mixing is not None,
        scale=scale,
        trust_remote_code=trust_remote_code,
    )
    trainer = FinetuneTrainer(
        applied,
        arguments,
        train_dataset=samples.train,
        eval_dataset=samples.validation,
        collate=samples.collate,
        problem_type=problem,
        compute_metrics=_metrics_of_validation(recipe, task, scale, trust_remote_code),
        target_scale=scale,
        precision=precision,
        patience=recipe.evaluation.patience,
        mixing=mixing,
        objective=build_objective(recipe, task, applied),
        plain_optimizer=plain_optimizer(recipe),
        sampler=sampler,
        callbacks=[RatesLog(), *callbacks_of_steps(recipe, applied), *([distillation] if distillation else ())],
        keep_best=recipe.average.soup_size if recipe.average.soup else 1,
    )
    trainer.row_names = names_of_rows(task)
    trainer.may_skip = int(recipe.training.values().get("skip_nonfinite_steps") or 0)
    if (onlooker := current()) is not None:
        trainer.add_callback(TellsOnlooker(onlooker, trainer))
    if arguments.report_to:
        trainer.add_callback(RecipeAsConfig(recipe, trainer.callback_handler.callbacks))
    return trainer


def _metrics_of_validation(
    recipe: Recipe, task: TaskData, scale: TargetScale | None, trust_remote_code: bool
) -> Callable[[Any], dict[str, float]]:
    """(logits, labels) -> metrics, with the exact mean loss: the Trainer's own counts padding of the last batch."""
    if task.labels.tasks:
        return validation_of_tasks(recipe, task, scale, trust_remote_code)
    names, problem = metric_names(recipe, task), task.labels.problem_type
    loss = loss_function(problem)

    def compute(prediction: Any) -> dict[str, float]:
        logits, labels = torch.as_tensor(prediction.predictions), torch.as_tensor(prediction.label_ids)
        if scale is not None:
            logits, labels = scale.standard(logits), scale.standard(labels)
        values = compute_metrics(
            prediction.predictions, prediction.label_ids, problem, names, trust_remote_code=trust_remote_code
        )
        return {
            "loss": mean_loss(loss, logits, labels),
            **{name: float("nan") if v is None else v for name, v in values.items()},
        }

    return compute


def data_in_words(task: TaskData) -> str:
    """One line: how many rows in each split, and what is predicted."""
    rows = [f"{len(split):,} {name}" for name in ("train", "validation", "test") if (split := getattr(task, name))]
    if task.held_out is not None:
        rows.append(f"{len(task.held_out):,} held-out")
    if task.labels.tasks:
        return "\n".join([f"data: {', '.join(rows)} rows{_left_out(task)}", *tasks_in_words(task)])
    kind = task.labels.problem_type.replace("_", " ")
    names = task.labels.names
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    what = kind if task.labels.problem_type == "regression" else f"{kind}, {len(names)} classes"
    return f"data: {', '.join(rows)} rows{_left_out(task)}  {what}: {shown}"


def _left_out(task: TaskData) -> str:
    return f"  ({len(task.skipped):,} broken rows left out)" if task.skipped else ""


def head_in_words(recipe: Recipe, loaded: LoadedModel) -> str:
    """One line: what was initialised anew, or that the checkpoint's own head is kept."""
    if recipe.strategy.kind == "scratch":
        return f"everything is initialised anew: the architecture of {recipe.model.checkpoint} with random weights"
    if not loaded.fresh:
        return "the checkpoint's own head is kept: its labels are these"
    modules = dict.fromkeys(name.rpartition(".")[0] for name in loaded.fresh)
    return f"initialised anew: {', '.join(modules)}"


def plan_in_words(
    recipe: Recipe, task: TaskData, arguments: TrainingArguments, number_format: NumberFormat, rate: float
) -> str:
    """Two lines before training starts: what was chosen, and why where the recipe does not say."""
    if recipe.strategy.kind == "features":
        return fit_in_words(recipe, task, arguments)
    if getattr(recipe.strategy, "solver", "adamw") == "lbfgs":
        tried = ", ".join(f"{decay:g}" for decay in weight_decays(recipe, arguments.weight_decay))
        return f"L-BFGS on all {len(task.train):,} training rows at once  weight decay {tried}"
    given = "learning_rate" in recipe.training.values()
    optimizer = recipe.training.values().get("optim")
    beside = f" with optim={optimizer}" if optimizer in PLAIN_OPTIMIZERS else ""
    origin = "recipe" if given else f"default of strategy={recipe.strategy.kind}{beside}"
    origin = "stage by stage" if recipe.strategy.kind == "stages" else origin
    batch = arguments.train_batch_size * arguments.world_size * arguments.gradient_accumulation_steps
    length = f"steps {arguments.max_steps}" if arguments.max_steps > 0 else f"epochs {arguments.num_train_epochs:g}"
    device = "CPU" if arguments.device.type == "cpu" else arguments.device.type.upper()
    machines = f"{arguments.world_size} processes on {device}" if arguments.world_size > 1 else device
    fp32 = "fp32 with TF32 products" if arguments.tf32 else "fp32"
    number = fp32 if number_format.name == "no" else number_format.name
    augment = image_augment(recipe, task)
    where = f" (on {device}, by the batch)" if changed_on_device(recipe, augment, arguments.device) else ""
    return (
        f"learning rate {rate_in_words(recipe, rate)} ({origin})  batch {batch}  {length}  "
        f"{machines}, {number} ({number_format.reason})  "
        f"augmentation {changes_in_words(recipe.data, augment)}{where}\n"
        f"The checkpoint with the best validation {arguments.metric_for_best_model} is kept."
    )
