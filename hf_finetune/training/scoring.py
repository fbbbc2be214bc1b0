"""What a finished run scores: the kept checkpoint on validation and test, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers.trainer_utils import PredictionOutput, TrainOutput

from hf_finetune.console import say
from hf_finetune.evaluation import with_intervals
from hf_finetune.evaluation.rules import fit_rule, rule_in_words, rule_scores
from hf_finetune.evaluation.task_scores import task_intervals
from hf_finetune.recipes.schema import VIEWS, Expected, Recipe
from hf_finetune.training.account import account_of, mean_training_loss
from hf_finetune.training.arguments import metric_names
from hf_finetune.training.features import Fitted
from hf_finetune.training.onlooker import Validated, current
from hf_finetune.training.setup import Samples
from hf_finetune.training.trainer import FinetuneTrainer

if TYPE_CHECKING:
    from hf_finetune.data import TaskData


@dataclass(frozen=True)
class Report:
    """Scores and test predictions of a run.

    Args:
        metrics: `train`, `validation` and `test`, as metrics.json holds them; `held_out` and what `rule_scores` tells.
        test_logits: (N, C), in the order of the test split, divided by the temperature; None without a test split.
        test_labels: (N,) or (N, C).
        held_out_logits: the same of the fold that did not train; None without folds.
    """

    metrics: dict[str, dict[str, Any]]
    test_logits: np.ndarray | None
    test_labels: np.ndarray | None
    held_out_logits: np.ndarray | None = None

    def in_words(self, folder: Path, expected: Expected | None = None) -> str:
        """The last lines of a run: each test metric with its interval, and what the recipe says of itself."""
        split = "test" if "test" in self.metrics else "validation"
        scores = self.metrics[split]
        lines = [f"{split} ({scores['samples']} samples)"]
        for name, value in scores.items():
            if name.endswith(("_ci95", "samples")) or name == "loss":
                continue
            shown = "undefined" if value is None else f"{value:.4f}"
            interval = scores.get(f"{name}_ci95")
            between = "" if not interval else f"  95% between {interval[0]:.4f} and {interval[1]:.4f}"
            lines.append(f"  {name:<24}{shown}{between}")
        lines += rule_in_words(self.metrics, split)
        if expected is not None:
            lines.append(expected.in_words())
        train = self.metrics["train"]
        lines.append(f"Trained {train['seconds']:.0f} s, {train['total_seconds']:.0f} s in all. Saved in {folder}.")
        return "\n".join(lines)


def score(
    recipe: Recipe,
    task: TaskData,
    trainer: FinetuneTrainer,
    samples: Samples,
    outcome: TrainOutput | Fitted,
    trust_remote_code: bool,
) -> Report:
    """Score the kept checkpoint; every rank takes part, and gets the same report."""
    trainer.tta = recipe.evaluation.tta
    if (views := VIEWS[recipe.evaluation.tta]) > 1:
        say(f"final scores: mean logits of {views} views of each image (evaluation.tta={recipe.evaluation.tta})")
    validation = trainer.predict(samples.validation, metric_key_prefix="validation")
    _tell_onlooker(task, trainer, validation)
    metrics: dict[str, dict[str, Any]] = {
        "train": outcome.facts() if isinstance(outcome, Fitted) else _training_facts(trainer, outcome),
        "validation": _scores_of(validation.metrics, "validation") | {"samples": len(validation.predictions)},
    }
    problem = task.labels.problem_type
    rule = fit_rule(recipe, validation.predictions, validation.label_ids, problem)
    rule.keep(trainer.applied.model.config)  # with which it is saved
    scored = {"validation": (validation.predictions, validation.label_ids)}
    tempered: dict[str, np.ndarray] = {}
    for role, split in (("test", samples.test), ("held_out", samples.held_out)):
        if split is None:
            continue
        found = trainer.predict(split, metric_key_prefix=role)
        scored[role] = found.predictions, found.label_ids
        tempered[role] = rule.tempered(found.predictions)
        metrics[role] = {
            "loss": found.metrics[f"{role}_loss"],
            **_test_scores(recipe, task, rule.decisive(tempered[role]), found.label_ids, trust_remote_code),
            "samples": len(found.predictions),
        }
    metrics |= rule_scores(recipe, rule, scored, problem)
    labels = scored["test"][1] if "test" in scored else None
    return Report(metrics, tempered.get("test"), labels, tempered.get("held_out"))


def _tell_onlooker(task: TaskData, trainer: FinetuneTrainer, validation: PredictionOutput) -> None:
    if (onlooker := current()) is None:
        return
    name = trainer.args.metric_for_best_model or "loss"
    score = float(validation.metrics[f"validation_{name}"])
    more = bool(trainer.args.greater_is_better)
    problem = "" if task.labels.tasks else task.labels.problem_type
    logits, labels = np.asarray(validation.predictions), np.asarray(validation.label_ids)
    onlooker.validated(Validated(name, score, more, problem, logits, labels))


def _test_scores(
    recipe: Recipe, task: TaskData, logits: np.ndarray, labels: np.ndarray, trust_remote_code: bool
) -> dict[str, Any]:
    if task.labels.tasks:
        return task_intervals(logits, labels, recipe, task.labels.tasks, trust_remote_code=trust_remote_code)
    return with_intervals(
        logits,
        labels,
        task.labels.problem_type,
        metric_names(recipe, task),
        resamples=recipe.evaluation.bootstrap,
        seed=recipe.seed,
        trust_remote_code=trust_remote_code,
    )


def _scores_of(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    timing = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
    named = {key.removeprefix(f"{prefix}_"): value for key, value in metrics.items()}
    return {name: value for name, value in named.items() if name not in timing}


def _training_facts(trainer: FinetuneTrainer, outcome: TrainOutput) -> dict[str, Any]:
    state, args = trainer.state, trainer.args
    # The Trainer's own figures know the last leg of an interrupted run alone.
    seconds = account_of(trainer).seconds
    samples = state.global_step * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    loss = mean_training_loss(state.log_history)
    return {
        "loss": outcome.metrics["train_loss"] if loss is None else loss,
        "seconds": round(seconds, 4),
        "samples_per_second": round(samples / seconds, 3),
        "epochs": state.epoch,
        "steps": state.global_step,
        "best_step": state.best_global_step,
        "processes": trainer.args.world_size,
        "time": trainer.pace.facts(),
        **({"skipped_steps": trainer.skipped.count} if trainer.skipped.count else {}),
        **({"task_weights": trainer.balance.now()} if trainer.balance else {}),
        **({"average": trainer.kept} if trainer.kept else {}),
        **({"sweep": trainer.prefix.swept} if trainer.prefix is not None and trainer.prefix.swept else {}),
        **({"teacher": trainer.distillation.score} if trainer.distillation else {}),
    }
