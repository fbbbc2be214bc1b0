"""The verbs `evaluate` and `predict`: a finished model on data, and on anything it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.console import say, warn
from hf_finetune.errors import UserError
from hf_finetune.evaluation.intervals import with_intervals
from hf_finetune.evaluation.label_names import is_unnamed, place_labels
from hf_finetune.evaluation.metrics import check_metrics, default_metrics
from hf_finetune.evaluation.rules import scores_of_sets

if TYPE_CHECKING:
    from hf_finetune.evaluation.predictor import Predictor
    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes import Recipe
    from hf_finetune.recipes.schema import Data

BATCH_SIZE = 32


def evaluate_command(
    model: str, overrides: Sequence[str] = (), *, trust_remote_code: bool = False
) -> dict[str, float | list[float] | int | None]:
    """Score a run, or any classification model, on a test split; print the metrics with their intervals.

    Args:
        model: an output_dir, a folder or a Hub id.
        overrides: `data.*` and `evaluation.*` settings. A run keeps its own data where none are given; another model
            needs at least data.dataset. A data set of one split is taken whole.

    Returns:
        the metrics, as `test` in metrics.json holds them; also `set_coverage`, `set_size` and `empty_sets` where the
        model makes prediction sets.

    Raises:
        UserError: the model or the data cannot be used, or the labels are not the model's.
    """
    from hf_finetune.model import load_finished

    loaded = load_finished(model, trust_remote_code=trust_remote_code)
    scores = score_finished(loaded, model, overrides, trust_remote_code=trust_remote_code, progress="evaluating")
    say(f"{model} on {scores['samples']:,} samples")
    for name, value in scores.items():
        if name.endswith(("samples", "_ci95")):
            continue
        interval = scores.get(f"{name}_ci95")
        shown = "undefined" if value is None else f"{value:.4f}"
        between = f"  95% between {interval[0]:.4f} and {interval[1]:.4f}" if isinstance(interval, list) else ""
        say(f"  {name:<24}{shown}{between}")
    return scores


def score_finished(
    loaded: LoadedModel,
    model: str,
    overrides: Sequence[str],
    *,
    trust_remote_code: bool = False,
    progress: str | None = None,
) -> dict[str, Any]:
    """The metrics of `evaluate_command`, without printing them."""
    from hf_finetune.data.task_labels import ManyLabels
    from hf_finetune.evaluation.predictor import Predictor

    recipe = recipe_of(model, overrides, loaded)
    trained_by = recipe_in(model)
    predictor = Predictor.of(loaded, recipe)
    own = trained_by is not None and not names_data(overrides)
    if isinstance(predictor.labels, ManyLabels):
        from hf_finetune.evaluation.finished_tasks import score_tasks

        columns = trained_by.data if trained_by else None
        return score_tasks(predictor, predictor.labels, recipe, columns, own, trust_remote_code, progress)
    names = recipe.evaluation.metrics or default_metrics(predictor.problem_type, len(predictor.names))
    complaints = check_metrics(
        names, predictor.problem_type, num_labels=len(predictor.names), trust_remote_code=trust_remote_code
    )
    if complaints:
        raise UserError("\n".join(complaints))
    test, labels = _test_split(recipe, predictor, trained_by.data if trained_by else None, own)
    logits = logits_of(predictor, test, recipe, progress)
    scores = with_intervals(
        predictor.rule.decisive(logits),
        labels,
        predictor.problem_type,
        names,
        resamples=recipe.evaluation.bootstrap,
        seed=recipe.seed,
        trust_remote_code=trust_remote_code,
    )
    of_sets = scores_of_sets(predictor.rule, logits, labels, predictor.problem_type, recipe)
    return {**scores, **of_sets, "samples": len(logits)}


def logits_of(predictor: Predictor, test: Any, recipe: Recipe, progress: str | None) -> np.ndarray:
    """Logits (N, C) of test rows, read as the recipe says."""
    from hf_finetune.data import TextCollator, collate_images, image_samples

    processor = predictor.loaded.processor
    if predictor.task == "image-classification":
        return predictor.logits(image_samples(test, processor), collate_images, _batch_size(recipe), progress)
    return predictor.logits(predictor.texts(test), TextCollator(processor), _batch_size(recipe), progress)


def recipe_in(model: str) -> Recipe | None:
    """The recipe of a run; None for a model that is no run."""
    from hf_finetune.recipes import load_recipe

    written = Path(model) / "recipe.yaml"
    return load_recipe(str(written)) if written.is_file() else None


def recipe_of(model: str, overrides: Sequence[str], loaded: LoadedModel) -> Recipe:
    """The recipe of a run, with overrides; for a model that is no run, a recipe made of the overrides.

    Raises:
        UserError: no data is named for a model that is no run, or a setting has nothing to do with evaluation.
    """
    from hf_finetune.evaluation.predictor import Predictor
    from hf_finetune.recipes import Recipe
    from hf_finetune.recipes.load import resolve

    for override in overrides:
        if not override.startswith(("data.", "evaluation.", "seed=")):
            raise UserError(f"{override}: a finished model takes data.* and evaluation.* settings, and seed.")
    written = Path(model) / "recipe.yaml"
    if written.is_file():
        # Without the notes on what went with the old data set: its columns are taken wherever the new one has them.
        return resolve(str(written), [*_without_training(overrides), *overrides]).recipe
    if not names_data(overrides):
        raise UserError(
            f"{model} is no run of hf_finetune, so it names no data: add data.dataset=ID, a folder or a file."
        )
    task = Predictor(loaded).task
    blank = Recipe.model_validate({"task": task, "model": {"checkpoint": model}, "data": {"dataset": "given-below"}})
    return blank.with_overrides(*overrides)


def _without_training(overrides: Sequence[str]) -> list[str]:
    """What stands in for the run's own settings that only training needs, or that were chosen for its own data."""
    if names_data(overrides):
        return ["data.train_split=auto", "data.validation=0.1", "data.test_split=auto", "data.max_eval_samples=null"]
    # Any split can be scored, train and validation too; a share is held out of train as in training.
    split = next((text.partition("=")[2] for text in overrides if text.startswith("data.test_split=")), None)
    return [] if split is None or _is_number(split) else ["data.train_split=auto", "data.validation=0.1"]


def names_data(overrides: Sequence[str]) -> bool:
    """Whether other data is named than a run's own."""
    return any(override.startswith(("data.dataset=", "data.dataset.")) for override in overrides)


def _is_number(text: str) -> bool:
    try:
        return float(text) is not None
    except ValueError:
        return False


def _test_split(recipe: Recipe, predictor: Predictor, trained_by: Data | None, own: bool) -> tuple[Any, np.ndarray]:
    """The test rows, and their labels as the model numbers its classes."""
    from hf_finetune.data import LabelSpace, labels_of, load_test

    known = LabelSpace(predictor.problem_type, tuple(predictor.names))
    unnamed = all(is_unnamed(name) for name in predictor.names) and predictor.problem_type != "regression"
    # Where names are stand-ins, the data's labels can be matched by their own order alone.
    space = labels_of(recipe) if unnamed else known
    test, skipped = load_test(recipe, space, trained_by=trained_by, own=own)
    labels = np.asarray(test["label"][:])
    if unnamed:
        labels = place_labels(labels, space, predictor.names, predictor.problem_type)
    if skipped:
        warn(f"{len(skipped):,} broken rows are left out (data.on_error=skip).")
    return test, labels


def _batch_size(recipe: Recipe) -> int:
    training: Any = recipe.training
    return int(training.values().get("per_device_eval_batch_size") or BATCH_SIZE)


def predict_command(
    model: str,
    inputs: Sequence[str],
    *,
    out: str | None = None,
    column: str | None = None,
    batch_size: int = BATCH_SIZE,
    folds: bool = False,
    trust_remote_code: bool = False,
) -> int:
    """Predict images or texts and write a table, or print one.

    The table grows in `OUT.part` and takes its name when it is whole; the same command goes on with one that was
    interrupted.

    Args:
        model: an output_dir, a folder or a Hub id.
        inputs: see `hf_finetune.evaluation.inputs.gather_inputs`.
        out: a .csv, .tsv, .jsonl or .parquet file; the table is printed where left out.
        column: column of the tables among the inputs; `A,B` for pairs of texts. A run's own columns if None.
        batch_size: inputs at a time.
        folds: the mean of the models of a run's folds answers (`evaluation.cross_validation`).

    Returns:
        exit code: 0, or 1 where an input could not be read; its row says why, and the others are predicted.

    Raises:
        UserError: the model or an argument cannot be used.
    """
    from hf_finetune.evaluation.inputs import gather_inputs
    from hf_finetune.evaluation.stream import predict_all
    from hf_finetune.evaluation.tables import check_ending
    from hf_finetune.model import load_finished

    if out is not None:
        check_ending(out)
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: at least 1.")
    columns = [name.strip() for name in column.split(",")] if column else []
    run = recipe_in(model)
    if folds:
        from hf_finetune.evaluation.folds_predictor import predictor_of_folds

        predictor: Predictor = predictor_of_folds(model, run, trust_remote_code=trust_remote_code)
    else:
        predictor = predictor_of(load_finished(model, trust_remote_code=trust_remote_code), model)
    found = gather_inputs(inputs, predictor.task, columns, run.data if run else None)
    return predict_all(predictor, found, model, out, batch_size)


def predictor_of(loaded: LoadedModel, model: str) -> Predictor:
    """A predictor that reads inputs as the run's recipe did: cut or in windows, one view or several."""
    from hf_finetune.evaluation.predictor import Predictor

    return Predictor.of(loaded, recipe_in(model))
