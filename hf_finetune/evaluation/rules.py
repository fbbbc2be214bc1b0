"""What the validation split tells about how a model's outputs should be read: temperature, thresholds, sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.errors import UserError
from hf_finetune.evaluation.conformal import check_rows, conformal_quantile, set_scores
from hf_finetune.evaluation.temperature import fit_temperature, how_calibrated
from hf_finetune.evaluation.thresholds import best_thresholds
from hf_finetune.outputs import Rule, probabilities
from hf_finetune.recipes.pairs_uncertainty import answer_faults

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import ProblemType, Recipe


def check_rules(recipe: Recipe, problem_type: str, validation_rows: int) -> None:
    """Raise a UserError, before training, where the recipe asks for what its labels or validation cannot give."""
    if recipe.tasks:
        return
    faults = [f"evaluation.{key}: {message}." for key, message in answer_faults(recipe, problem_type)]
    if faults:
        raise UserError("\n".join(faults))
    if recipe.evaluation.conformal is not None:
        check_rows(validation_rows, recipe.evaluation.conformal)


def fit_rule(recipe: Recipe, logits: np.ndarray, labels: np.ndarray, problem_type: ProblemType) -> Rule:
    """The rule that a recipe asks for, from validation logits (N, C) and labels; the plain one where it asks for none.

    First the temperature, then thresholds and sets of the probabilities that it gives.
    """
    wanted = recipe.evaluation
    if recipe.tasks:
        return Rule()
    rule = Rule()
    if wanted.calibration == "temperature":
        rule = Rule(fit_temperature(logits, labels, problem_type))
    tempered = rule.tempered(logits)
    if wanted.thresholds == "per_class":
        return Rule(rule.temperature, best_thresholds(tempered, labels))
    if wanted.conformal is not None:
        quantile = conformal_quantile(probabilities(tempered, problem_type), labels, wanted.conformal)
        return Rule(rule.temperature, coverage=wanted.conformal, quantile=quantile)
    return rule


def rule_scores(
    recipe: Recipe, rule: Rule, splits: dict[str, tuple[np.ndarray, np.ndarray]], problem_type: ProblemType
) -> dict[str, Any]:
    """What metrics.json tells of a rule.

    Args:
        recipe: what was asked for.
        rule: that was found on validation.
        splits: name -> raw logits (N, C) and labels.
        problem_type: of the labels.

    Returns:
        `calibration`: the temperature, and by split ECE and log loss `before` and `after` it; `conformal`: the coverage
        that was asked for and, by split but validation, `scores_of_sets`.
    """
    told: dict[str, Any] = {}
    if recipe.evaluation.calibration != "none":
        told["calibration"] = {"temperature": rule.temperature}
        for name, (logits, labels) in splits.items():
            before = how_calibrated(logits, labels, problem_type)
            after = how_calibrated(rule.tempered(logits), labels, problem_type)
            told["calibration"][name] = {key: {"before": before[key], "after": after[key]} for key in before}
    if rule.quantile is not None:
        told["conformal"] = {"coverage": rule.coverage}
        for name, (logits, labels) in splits.items():
            if name != "validation":  # on which it is as it was made
                own = scores_of_sets(rule, rule.tempered(logits), labels, problem_type, recipe)
                told["conformal"][name] = {**own, "samples": len(labels)}
    return told


def rule_in_words(metrics: dict[str, Any], split: str) -> list[str]:
    """Lines at the end of a run about what `rule_scores` tells of a split."""
    lines = []
    calibration, sets = metrics.get("calibration", {}), metrics.get("conformal", {})
    if split in calibration:
        ece = calibration[split]["ece"]
        lines.append(
            f"  temperature {calibration['temperature']:.3f}: ECE {ece['before']:.4f} before, {ece['after']:.4f} after"
        )
    if split in sets:
        own = sets[split]
        interval = own.get("set_coverage_ci95")
        between = f" (95% between {interval[0]:.1%} and {interval[1]:.1%})" if interval else ""
        lines.append(
            f"  sets for {sets['coverage']:.0%}: {own['set_coverage']:.1%} hold the right class{between}; "
            f"{own['set_size']:.2f} classes on average, {own['empty_sets']:.1%} empty"
        )
    return lines


def scores_of_sets(
    rule: Rule, tempered: np.ndarray, labels: np.ndarray, problem_type: ProblemType, recipe: Recipe
) -> dict[str, Any]:
    """`set_scores` of rows, from their tempered logits; nothing where the model makes no sets."""
    if rule.quantile is None:
        return {}
    likely = probabilities(np.ascontiguousarray(tempered), problem_type)
    return set_scores(rule, likely, labels, resamples=recipe.evaluation.bootstrap, seed=recipe.seed)
