"""Several tasks, and what they cannot have beside them: what is about one label column is refused, not ignored."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_finetune.recipes.metric_names import METRIC_NAMES
from hf_finetune.recipes.pairs_loss import LOSSES
from hf_finetune.recipes.tasks_section import PROBLEM_OF, TaskData, TaskSettings

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

Faults = Iterator[tuple[str, str]]

MEAN_SCORE = "mean_score"  # the validation metric that chooses the checkpoint of several tasks, unless told otherwise
_EXTERNAL = "evaluate:"
_INPUTS = ("image", "text", "text_pair")


def faults_of_tasks(recipe: Recipe) -> Faults:
    """(path, message) of every setting that does not go with `tasks`, or needs them and has none."""
    if not recipe.tasks:
        if recipe.loss.balance != "fixed":
            yield "loss.balance", f"{recipe.loss.balance} weighs the losses of several tasks: name them in tasks"
        if recipe.data.weight is not None:
            yield "data.weight", "is for data sets that are mixed, and no task brings one (tasks.NAME.data): remove it"
        return
    for name, task in recipe.tasks.items():
        yield from _task(recipe, name, task)
        if task.data is not None:
            yield from _own_data(recipe, f"tasks.{name}.data", task.data)
    if all(task.weight == 0 for task in recipe.tasks.values()):
        yield "tasks", "every weight is 0, so that nothing is learned: give one task a weight above 0"
    yield from _sources(recipe)
    yield from _one_label(recipe)
    yield from _losses(recipe)
    yield from _best(recipe)


def _task(recipe: Recipe, name: str, task: TaskSettings) -> Faults:
    path = f"tasks.{name}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        yield path, f"'{name}' names columns and metrics: use letters, digits and _, with a letter first"
    problem = PROBLEM_OF[task.type] if task.type else None
    if problem and task.loss != "auto" and task.loss not in LOSSES[problem]:
        allowed = ", ".join(kind for kind in ("auto", *LOSSES[problem]) if kind != "coral")
        yield f"{path}.loss", f"{task.loss} is not a loss of {task.type}: use {allowed}"
    tables = [METRIC_NAMES[problem]] if problem else list(METRIC_NAMES.values())
    known = list(dict.fromkeys(metric for table in tables for metric in table))
    for metric in task.metrics or ():
        if metric not in known and not metric.startswith(_EXTERNAL):
            close = difflib.get_close_matches(metric, known, n=1)
            guess = f" did you mean {close[0]}?" if close else ""
            yield f"{path}.metrics", f"'{metric}' is not a metric here;{guess} have {', '.join(known)}"
    where = recipe.data if task.data is None else task.data
    for role in _INPUTS:
        if task.label == getattr(where, role):
            yield f"{path}.label", f"'{task.label}' is the {role} column: name a column of labels"
    if task.type == "regression" and recipe.model.head.kind == "cosine":
        yield "model.head.kind", f"cosine is bounded, and the targets of the task {name} are not: use linear or mlp"


def _own_data(recipe: Recipe, path: str, data: TaskData) -> Faults:
    mine = ("image",) if recipe.task == "image-classification" else ("text", "text_pair")
    for role in _INPUTS:
        if getattr(data, role) is not None and role not in mine:
            yield f"{path}.{role}", f"is not what a task of {recipe.task} reads: remove it"
    if data.text_pair is not None and data.text is None:
        yield f"{path}.text_pair", "needs text beside it, to say which column comes first"
    if isinstance(data.validation, str) and data.validation == data.test_split:
        yield f"{path}.validation", f"'{data.validation}' is the test split too, which never chooses a checkpoint"
    if data.train_split in (data.validation, data.test_split) and data.train_split != "auto":
        yield f"{path}.train_split", f"'{data.train_split}' is named for another use too: the splits must be apart"
    if recipe.data.clean is not None:
        yield "data.clean", "cleans one data set, and the tasks bring several: clean them beforehand"


def _sources(recipe: Recipe) -> Faults:
    """Which data sets there are, and how often each is drawn."""
    brought = {f"tasks.{name}.data": task.data for name, task in recipe.tasks.items() if task.data is not None}
    if len(brought) == len(recipe.tasks):
        first = next(iter(recipe.tasks))
        yield f"tasks.{first}.data", "no task takes its labels from data.dataset: give this data set there"
    if not brought:
        if recipe.data.weight is not None:
            yield "data.weight", "is for data sets that are mixed, and no task brings one (tasks.NAME.data): remove it"
        return
    weights = {"data": recipe.data.weight} | {path: data.weight for path, data in brought.items()}
    lacking = [path for path, weight in weights.items() if weight is None]
    if lacking and len(lacking) < len(weights):
        yield f"{lacking[0]}.weight", "is left out where other data sets have one: give each a weight, or none"
    order = recipe.training.values().get("train_sampling_strategy", "random")
    if not lacking and order != "random":
        yield "training.train_sampling_strategy", f"{order} and data sets mixed by weight are two orders: keep one"
    if not lacking and getattr(recipe.strategy, "solver", "adamw") == "lbfgs":
        yield "strategy.solver", "lbfgs takes every row once, and data sets are mixed by weight: remove one of the two"


def _one_label(recipe: Recipe) -> Faults:
    """What is about the one label of a data set."""
    data = recipe.data
    of_one = {
        "data.label": (data.label, "each task names its own: tasks.NAME.label"),
        "data.problem_type": (data.problem_type, "each task has its own: tasks.NAME.type"),
        "evaluation.metrics": (recipe.evaluation.metrics, "each task has its own: tasks.NAME.metrics"),
        "data.mixup": (data.mixup, "mixes one label a row, and there are several tasks: remove it"),
        "data.cutmix": (data.cutmix, "mixes one label a row, and there are several tasks: remove it"),
        "distill.teacher": (recipe.distill, "teaches one task, and there are several: remove it"),
    }
    for path, (value, words) in of_one.items():
        if value:
            yield path, words
    if data.clean is not None and data.clean.max_per_class is not None:
        yield "data.clean.max_per_class", "counts the rows of one class, and there are several tasks: remove it"
    if recipe.strategy.kind == "features":
        yield "strategy", "features is fitted by scikit-learn to one label, and there are several tasks: use head"


def _losses(recipe: Recipe) -> Faults:
    loss = recipe.loss
    if loss.kind != "auto":
        yield "loss.kind", f"{loss.kind} is for one task: say tasks.NAME.loss={loss.kind}"
    of_one = {
        "class_weights": "weighs the classes of one task",
        "logit_adjustment": "shifts the logits of one task",
        "r_drop": "compares the answers of one task",
    }
    for name, words in of_one.items():
        if getattr(loss, name):
            yield f"loss.{name}", f"{words}, and there are several: remove it"
    if loss.sampling != "shuffle":
        yield "loss.sampling", f"{loss.sampling} looks at the classes of one task, and there are several: use shuffle"
    if loss.balance != "fixed":
        if getattr(recipe.strategy, "solver", "adamw") == "lbfgs":
            yield "loss.balance", f"{loss.balance} changes by the step, and lbfgs seeks one minimum: use fixed"
        if getattr(recipe.strategy, "sweep", None) is not None:
            yield "loss.balance", f"{loss.balance} is kept for one model, and strategy.sweep trains several: use fixed"
    types = [task.type for task in recipe.tasks.values()]
    if recipe.training.values().get("label_smoothing_factor") and None not in types and "classification" not in types:
        yield "training.label_smoothing_factor", "is for classes, and no task has such labels: remove it"


def _best(recipe: Recipe) -> Faults:
    best = recipe.evaluation.best
    if best is None or best in (MEAN_SCORE, "loss"):
        return
    if not any(best.startswith(f"{name}_") and best != f"{name}_" for name in recipe.tasks):
        tasks = ", ".join(f"{name}_METRIC" for name in recipe.tasks)
        yield "evaluation.best", f"'{best}' is not measured with several tasks: use {MEAN_SCORE}, loss, or {tasks}"
