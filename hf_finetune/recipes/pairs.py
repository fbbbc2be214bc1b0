"""Settings that are right each by itself and cannot go together. Checked whenever a Recipe is made."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import Fault
from hf_finetune.recipes.metric_names import METRIC_NAMES
from hf_finetune.recipes.pairs_auto import faults_of_auto
from hf_finetune.recipes.pairs_cache import faults_of_cache
from hf_finetune.recipes.pairs_clean import faults_of_clean
from hf_finetune.recipes.pairs_data import faults_of_data
from hf_finetune.recipes.pairs_distill import faults_of_distill
from hf_finetune.recipes.pairs_features import faults_of_features
from hf_finetune.recipes.pairs_hub import faults_of_hub
from hf_finetune.recipes.pairs_loss import faults_of_loss
from hf_finetune.recipes.pairs_model import faults_of_model
from hf_finetune.recipes.pairs_most import faults_of_sizes
from hf_finetune.recipes.pairs_peft import faults_of_peft
from hf_finetune.recipes.pairs_stages import faults_of_stages
from hf_finetune.recipes.pairs_stream import faults_of_stream
from hf_finetune.recipes.pairs_tasks import faults_of_tasks
from hf_finetune.recipes.pairs_uncertainty import faults_of_uncertainty

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

_AUTO = "auto"  # data.train_split and data.test_split: by the data's own names
_EXTERNAL = "evaluate:"  # a metric of the Hub, by its id

# Bounds that transformers leaves to chance: below them a run does nothing, or fails hours later.
_ABOVE_ZERO = ("learning_rate", "num_train_epochs", "adam_epsilon")
_AT_LEAST_ONE = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "eval_accumulation_steps",
    "save_total_limit",
)
_AT_LEAST_ZERO = ("weight_decay", "warmup_steps", "max_grad_norm", "eval_delay", "dataloader_num_workers")
_BELOW_ONE = ("label_smoothing_factor", "adam_beta1", "adam_beta2")


class PairsError(ValueError):
    """The faults of a recipe whose fields are right one by one."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("\n".join(map(str, faults)))


def pair_faults(recipe: Recipe) -> list[Fault]:
    """Everything in a recipe that cannot go together."""
    checks = (
        _task,
        _columns,
        _splits,
        _metrics,
        _bounds,
        _schedule,
        faults_of_auto,
        faults_of_cache,
        faults_of_clean,
        faults_of_data,
        faults_of_distill,
        faults_of_features,
        faults_of_hub,
        faults_of_loss,
        faults_of_model,
        faults_of_peft,
        faults_of_sizes,
        faults_of_stages,
        faults_of_stream,
        faults_of_tasks,
        faults_of_uncertainty,
    )
    return [Fault(path, message) for check in checks for path, message in check(recipe)]


def _task(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data = recipe.data
    if recipe.task == "image-classification":
        for name in ("text", "text_pair", "max_length"):
            if getattr(data, name) is not None:
                yield f"data.{name}", f"is for text, and the task is {recipe.task}: remove it"
        if recipe.training.values().get("train_sampling_strategy") == "group_by_length":
            yield "training.train_sampling_strategy", "images have no length to group by: use random"
    else:
        if data.image is not None:
            yield "data.image", f"is for images, and the task is {recipe.task}: remove it"
        if data.augment == "basic":
            yield "data.augment", f"crops and flips are for images, and the task is {recipe.task}: use auto or none"


def _columns(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data = recipe.data
    if data.text_pair is not None and data.text is None and recipe.task == "text-classification":
        yield "data.text_pair", "needs data.text beside it, to say which column comes first"
    if data.text is not None and data.text == data.text_pair:
        yield "data.text_pair", f"is the same column as data.text ('{data.text}')"
    for name in ("image", "text", "text_pair"):
        if data.label is not None and data.label == getattr(data, name):
            yield "data.label", f"is the same column as data.{name} ('{data.label}')"


def _splits(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data = recipe.data
    if data.test_split == data.train_split != _AUTO:
        yield (
            "data.test_split",
            f"'{data.test_split}' is the train split too: the test needs others; a share such as 0.2 holds some out",
        )
    if data.validation == data.train_split:
        yield "data.validation", f"'{data.validation}' is the train split too: a share such as 0.1 holds some rows out"
    if isinstance(data.validation, str) and data.validation == data.test_split:
        yield (
            "data.validation",
            f"'{data.validation}' is the test split too, which never chooses a checkpoint: use a share such as 0.1",
        )
    for name in ("train_split", "validation", "test_split"):
        split = getattr(data, name)
        if isinstance(split, str) and "[" in split:
            limit = "data.max_train_samples=N" if name == "train_split" else "data.max_eval_samples=N"
            yield f"data.{name}", f"'{split}' is a slice: name the whole split, and take a part of it with {limit}"
    shares = [share for share in (data.validation, data.test_split) if isinstance(share, float)]
    if sum(shares) >= 1:
        yield "data.validation", f"the shares held out ({' + '.join(map(str, shares))}) leave nothing to train on"
    if isinstance(data.dataset, dict):
        have = ", ".join(data.dataset)
        for name in ("train_split", "validation", "test_split"):
            split = getattr(data, name)
            if isinstance(split, str) and split not in (*data.dataset, _AUTO) and "[" not in split:
                remedy = "" if name == "train_split" else f"; or data.{name}=0.2 holds out a share of train"
                yield f"data.{name}", f"'{split}' is not among the splits of data.dataset ({have}){remedy}"


def _metrics(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.tasks:
        return  # they have metrics of their own, see `pairs_tasks`
    problem = recipe.data.problem_type
    tables = [METRIC_NAMES[problem]] if problem else list(METRIC_NAMES.values())
    allowed = list(dict.fromkeys(name for table in tables for name in table))
    chosen = recipe.evaluation.metrics
    for name in chosen or ():
        if name not in allowed and not _is_external(name):
            yield "evaluation.metrics", _unknown_metric(name, allowed, problem)
    ours = {name for name in chosen or () if name in allowed}
    if not any(ours <= set(table) for table in tables):
        yield "evaluation.metrics", f"no kind of problem has all of {', '.join(sorted(ours))} ({_tables()})"
    best = recipe.evaluation.best
    if best is None or best == "loss":
        return
    if best not in allowed and not _is_external(best):
        yield "evaluation.best", _unknown_metric(best, ["loss", *allowed], problem)
    elif chosen and best not in chosen:
        yield (
            "evaluation.best",
            f"'{best}' is not among evaluation.metrics ({', '.join(chosen)}): add it, or use loss",
        )


def _is_external(name: str) -> bool:
    return name.startswith(_EXTERNAL) and len(name) > len(_EXTERNAL)


def _tables() -> str:
    return "; ".join(f"{problem}: {', '.join(names)}" for problem, names in METRIC_NAMES.items())


def _unknown_metric(name: str, allowed: list[str], problem: str | None) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    guess = f" did you mean {close[0]}?" if close else ""
    where = f"for {problem} " if problem else ""
    return f"'{name}' is not a metric {where}here;{guess} have {', '.join(allowed)}, or evaluate:ID for one of the Hub"


def _bounds(recipe: Recipe) -> Iterator[tuple[str, str]]:
    values: dict[str, Any] = recipe.training.values()
    for name, value in values.items():
        given = f"{value} must be"
        if name in _ABOVE_ZERO and not value > 0:
            yield f"training.{name}", f"{given} more than 0"
        elif name in _AT_LEAST_ONE and value < 1:
            yield f"training.{name}", f"{given} at least 1"
        elif name in _AT_LEAST_ZERO and value < 0:
            yield f"training.{name}", f"{given} at least 0"
        elif name in _BELOW_ONE and not 0 <= value < 1:
            yield f"training.{name}", f"{given} at least 0 and less than 1"
        elif name in ("warmup_steps", "logging_steps", "eval_steps", "save_steps") and value > 1 and value % 1:
            yield f"training.{name}", f"{given} a whole number of steps, or a share of all steps below 1"


def _schedule(recipe: Recipe) -> Iterator[tuple[str, str]]:
    values = recipe.training.values()
    if values.get("eval_strategy") == "no":
        also = " and evaluation.patience counts evaluations" if recipe.evaluation.patience is not None else ""
        yield "training.eval_strategy", f"'no' leaves nothing to choose the checkpoint by{also}: use epoch or steps"
    problem = recipe.data.problem_type
    if values.get("label_smoothing_factor") and problem in ("regression", "multi_label_classification"):
        yield "training.label_smoothing_factor", f"is for single-label classes, and data.problem_type is {problem}"
