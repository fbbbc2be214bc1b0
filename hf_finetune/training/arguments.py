"""TrainingArguments of a run: the recipe's own words over this project's defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_tf32_available

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.evaluation import check_metrics, default_metrics, greater_is_better
from hf_finetune.evaluation.rules import check_rules
from hf_finetune.evaluation.task_scores import best_of_tasks, check_tasks
from hf_finetune.recipes.schema import Recipe
from hf_finetune.recipes.staging import is_staged, total_epochs
from hf_finetune.training.optimizers import plain_optimizer
from hf_finetune.training.precision import Precision, launched_by_fsdp, launcher_shards_the_model
from hf_finetune.training.reporting import check_reporting

if TYPE_CHECKING:
    from hf_finetune.data import TaskData

# Where these differ from transformers' defaults there is a reason: a batch of 8 wastes a GPU, validation after every
# epoch is what chooses the checkpoint, a warm-up saves pretrained layers from the first large updates.
DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "eval_strategy": "epoch",
    "logging_steps": 0.02,
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
    "save_total_limit": 2,
    # Logits leave the device every few batches, so that memory does not grow with classes x samples.
    "eval_accumulation_steps": 8,
    "ddp_find_unused_parameters": False,
    # A last batch that is short would weigh its samples more, and would differ between one process and several.
    "dataloader_drop_last": True,
    "report_to": "none",
}


def build_arguments(recipe: Recipe, learning_rate: float, checkpoints: Path, precision: Precision) -> TrainingArguments:
    """The Trainer's arguments, checked before any data is touched; `fit_to_data` adds what follows from the data.

    Args:
        recipe: validated; its `training` section wins over every default.
        learning_rate: the recipe's own, or the strategy's default.
        checkpoints: folder of the resumable checkpoints.
        precision: of the training steps.

    Raises:
        UserError: TrainingArguments refuse the values, or the accelerate config shards a model and there is no GPU.
    """
    refuse_sharding_on_cpu()
    chosen = defaults(recipe.task) | {"tf32": _tf32()} | recipe.training.arguments()
    plain_optimizer(recipe)  # refuses what it does not know, before any data is touched
    _save_when_evaluated(chosen)
    _give_stages_their_time(chosen, recipe)
    ours = _ours(recipe, precision) | {"learning_rate": learning_rate, "output_dir": str(checkpoints)}
    try:
        arguments = TrainingArguments(**chosen | ours)
    except (ValueError, TypeError, ImportError, RuntimeError) as fault:
        raise UserError(f"training: transformers refuses these arguments: {fault}") from fault
    check_reporting(list(arguments.report_to))
    if arguments.n_gpu > 1:
        say(f"One process sees {arguments.n_gpu} GPUs and uses one; `accelerate launch --multi_gpu` uses all.")
        arguments._n_gpu = 1
    return arguments


def refuse_sharding_on_cpu() -> None:
    """Stop where the accelerate config asks for FSDP and the CPU trains; DeepSpeed shards there too.

    accelerate would train whole copies of the model there, without a word.

    Raises:
        UserError: it does.
    """
    if launched_by_fsdp() and _on_cpu():
        raise UserError(
            "The accelerate config asks for FSDP, which needs GPUs, and none is used here: accelerate_configs/"
            "cpu_2proc.yaml starts processes of the CPU, each with the whole model."
        )


def fit_to_data(arguments: TrainingArguments, recipe: Recipe, task: TaskData, trust_remote_code: bool) -> None:
    """Choose the metric that picks the checkpoint, and make a batch smaller that is larger than the data.

    Raises:
        UserError: a metric, label smoothing or kind of answers that this data has not, `evaluation.best` that is not
            among the metrics, too few validation rows for prediction sets, or fewer rows than processes.
    """
    if task.labels.tasks:
        check_tasks(recipe, task.labels.tasks, trust_remote_code)
        arguments.metric_for_best_model, arguments.greater_is_better = best_of_tasks(recipe, task.labels.tasks)
    else:
        _choose_metric(arguments, recipe, task, trust_remote_code)
        check_rules(recipe, task.labels.problem_type, len(task.validation))
    rows, processes, size = len(task.train), arguments.world_size, arguments.per_device_train_batch_size
    if arguments.dataloader_drop_last and size * processes > rows:
        if rows < processes:
            raise UserError(f"{rows} training rows are fewer than the {processes} processes.")
        arguments.per_device_train_batch_size = rows // processes
        say(
            f"A batch of {size * processes} is more than the {rows} training rows: {rows // processes} a process it is."
        )


def _choose_metric(arguments: TrainingArguments, recipe: Recipe, task: TaskData, trust_remote_code: bool) -> None:
    complaints = check_metrics(
        metric_names(recipe, task),
        task.labels.problem_type,
        num_labels=task.labels.num_labels,
        trust_remote_code=trust_remote_code,
    )
    if complaints:
        raise UserError("evaluation.metrics: " + " ".join(complaints))
    if arguments.label_smoothing_factor and task.labels.problem_type != "single_label_classification":
        raise UserError(
            f"training.label_smoothing_factor={arguments.label_smoothing_factor:g} is for single-label classes, and "
            f"the data is {task.labels.problem_type.replace('_', ' ')}: remove it."
        )
    best = best_metric(recipe, task)
    arguments.metric_for_best_model = best
    arguments.greater_is_better = False if best == "loss" else greater_is_better(best)


def metric_names(recipe: Recipe, task: TaskData) -> tuple[str, ...]:
    """The metrics of a run: the recipe's, or those of its task."""
    return recipe.evaluation.metrics or default_metrics(task.labels.problem_type, task.labels.num_labels)


def best_metric(recipe: Recipe, task: TaskData) -> str:
    """The validation metric that chooses the checkpoint.

    Raises:
        UserError: `evaluation.best` names a metric that is not measured.
    """
    names = metric_names(recipe, task)
    best = recipe.evaluation.best or names[0]
    if best not in (*names, "loss"):
        raise UserError(f"evaluation.best={best} is not measured here: choose from {', '.join(names)} or loss.")
    return best


def _ours(recipe: Recipe, precision: Precision) -> dict[str, Any]:
    """What a recipe may not choose, because the run depends on it."""
    # Outside of FSDP and DeepSpeed the Trainer does bf16 itself, on training steps only: see FinetuneTrainer.
    accelerate_does_it = precision == "fp16" or launcher_shards_the_model()
    if not accelerate_does_it:
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    return {
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "bf16": precision == "bf16" and accelerate_does_it,
        "fp16": precision == "fp16",
        # `accelerate launch --multi_gpu` on a machine without one would otherwise start independent runs.
        "use_cpu": _on_cpu(),
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "restore_callback_states_from_checkpoint": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        # A NaN loss would be logged as 0.
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "do_train": True,
        "do_eval": True,
    }


def _give_stages_their_time(chosen: dict[str, Any], recipe: Recipe) -> None:
    """The epochs of listed stages; and several processes that bear parameters which learn in some stages only."""
    chosen["num_train_epochs"] = total_epochs(recipe)
    if is_staged(recipe):
        chosen["ddp_find_unused_parameters"] = True


def _on_cpu() -> bool:
    asked = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
    return asked or not (torch.cuda.is_available() or torch.backends.mps.is_available())


def _tf32() -> bool | None:
    """fp32 products in TF32 where the GPU has it: several times faster, with ten bits of each factor."""
    return True if torch.cuda.is_available() and not _on_cpu() and is_torch_tf32_available() else None


def defaults(task: str) -> dict[str, Any]:
    """What a recipe of this task may leave unsaid, on this machine."""
    return DEFAULTS | _by_device(task)


# On a CPU a forward pass of more images no longer fits its caches: ViT-Tiny took 1.2 times as long at 64, 2 at 128.
_IMAGES_ON_CPU = 16


def _by_device(task: str) -> dict[str, Any]:
    """Loader processes: none where the CPU trains, since they would take its cores; else the host does not wait for a
    batch's way to the GPU, from pinned memory. And images of a pass without gradients."""
    if _on_cpu():
        images = {"per_device_eval_batch_size": _IMAGES_ON_CPU} if task == "image-classification" else {}
        return {"dataloader_num_workers": 0, **images}
    workers = min(8, (os.cpu_count() or 2) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return {"dataloader_num_workers": workers, "accelerator_config": {"non_blocking": True}}


def _save_when_evaluated(chosen: dict[str, Any]) -> None:
    """Every evaluation may be the best one, so each leaves a checkpoint, unless told otherwise."""
    if str(chosen["eval_strategy"]) == "no":
        raise UserError("training.eval_strategy=no: validation chooses the checkpoint; use epoch or steps.")
    chosen.setdefault("save_strategy", chosen["eval_strategy"])
    if "eval_steps" in chosen and str(chosen["save_strategy"]) == "steps":
        chosen.setdefault("save_steps", chosen["eval_steps"])
