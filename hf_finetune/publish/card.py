"""The model card: what the model is, what it scored and how sure that is, how to use it, how it was made."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from hf_finetune.publish.card_facts import data_table, how, limits, machine, source
from hf_finetune.publish.card_header import NOT_SCORES, header
from hf_finetune.publish.card_pictures import CONFUSION, CURVE, FOLDER
from hf_finetune.publish.card_usage import beyond_pipelines, no_probabilities, usage
from hf_finetune.publish.code_span import code
from hf_finetune.publish.local_places import is_hub_id
from hf_finetune.publish.own_part import marked, recorded

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace
    from hf_finetune.recipes import Recipe


def model_card(
    recipe: Recipe,
    labels: LabelSpace,
    metrics: dict[str, dict[str, Any]],
    table: str,
    *,
    own_code: bool = False,
    repo: str | None = None,
    about: dict[str, Any] | None = None,
    pictures: Collection[str] = (),
    adapter: bool = False,
) -> str:
    """Text of README.md, its YAML header as the Hub reads it, its body between the marks of what is ours.

    Args:
        recipe: with revisions pinned, and nothing that is this machine's (`public_recipe`).
        labels: what the model answers.
        metrics: as metrics.json holds them.
        table: the strategy's table.
        own_code: whether the model's code lies beside its weights.
        repo: owner/name, for a card on the Hub.
        about: as about.json holds it.
        pictures: names of those in `pictures/`.
        adapter: whether weights of an adapter lie beside the base model.
    """
    name = recipe.output_dir.rstrip("/").rsplit("/", 1)[-1] or "model"
    about = about or {}
    split = "test" if "test" in metrics else "validation"
    parts = [
        f"# {name}",
        _what(recipe, labels),
        f"## Scores\n\n{score_table(metrics[split], split)}" if split in metrics else "",
        _under("### Over seeds", seeds_table(metrics.get("seeds", {}))),
        _picture(CONFUSION, "True classes by row, predicted ones by column, over the test samples", pictures),
        f"## How to use it\n\n{usage(recipe, repo or name, own_code)}",
        beyond_pipelines(recipe),
        no_probabilities(metrics, labels),
        f"## How it was made\n\n{how(recipe, repo)}",
        f"### What learned\n\n```text\n{table.strip()}\n```" if table.strip() else "",
        _picture(CURVE, "Loss and validation score by epoch", pictures),
        _under("### Data", data_table(recipe, about)),
        _under("### With what", machine(metrics, about)),
        f"## Limits\n\n{limits(recipe, metrics, about)}",
    ]
    body = "\n\n".join(part for part in parts if part)
    return recorded(f"---\n{header(recipe, metrics, name, adapter, about)}\n---\n\n{marked(body)}\n")


def _under(title: str, text: str) -> str:
    return f"{title}\n\n{text}" if text else ""


def _picture(name: str, told: str, there: Collection[str]) -> str:
    return f"![{told}]({FOLDER}/{name})" if name in there else ""


def score_table(scores: dict[str, Any], split: str) -> str:
    """Metrics of a split and their 95% intervals, as Markdown."""
    lines = ["| metric | value | 95% interval |", "|---|---|---|"]
    for name, value in scores.items():
        if name in NOT_SCORES or name.endswith(("_ci95", "_samples")):
            continue
        interval = scores.get(f"{name}_ci95")
        between = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
        lines.append(f"| {name} | {_number(value)} | {between} |")
    bootstrap = " The intervals come from a bootstrap over the samples; they leave out the chance of training." * (
        any(name.endswith("_ci95") for name in scores)
    )
    return (
        "\n".join(lines) + f"\n\nMeasured on the {scores.get('samples', 0):,} samples of the {split} split.{bootstrap}"
    )


def seeds_table(section: dict[str, Any]) -> str:
    """Means over seeds with their intervals, as Markdown; empty where there was one seed."""
    if len(section.get("seeds", ())) < 2:
        return ""
    lines = ["| metric | mean | 95% interval | standard deviation | by seed |", "|---|---|---|---|---|"]
    for name, told in section["metrics"].items():
        interval, std = told["ci95"], told["std"]
        between = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
        apart = "" if std is None else f"{std:.4f}"
        values = ", ".join(map(_number, told["values"]))
        lines.append(f"| {name} | {_number(told['mean'])} | {between} | {apart} | {values} |")
    return (
        "\n".join(lines) + f"\n\nThe same recipe trained with the seeds {', '.join(map(str, section['seeds']))} on the "
        f"same rows; the model here is that of the first. These intervals hold over seeds and over the samples of the "
        f"{section['split']} split."
    )


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) and value == value else "undefined"


def _what(recipe: Recipe, labels: LabelSpace) -> str:
    if labels.tasks:
        return _what_of_tasks(recipe, labels)
    kind = _kind(labels)
    names = ", ".join(map(code, labels.names[:20])) + (", ..." if labels.num_labels > 20 else "")
    return f"{_whence(recipe)} From {_thing(recipe)} it tells {kind}: {names}.{_teacher(recipe)}"


def _what_of_tasks(recipe: Recipe, labels: LabelSpace) -> str:
    lines = [
        f"- {code(part.name)} (column {code(part.column)}): {_kind(part.space)}: "
        + ", ".join(map(code, part.space.names[:20]))
        + (", ..." if part.space.num_labels > 20 else "")
        for part in labels.tasks
    ]
    brought = {name: task.data.dataset for name, task in recipe.tasks.items() if task.data is not None}
    others = "".join(f" {code(name)} was learned from {code(dataset)}." for name, dataset in brought.items())
    return "\n".join([f"{_whence(recipe)}{others} From {_thing(recipe)} it tells, at once:\n", *lines])


def _kind(labels: LabelSpace) -> str:
    return {
        "single_label_classification": f"one of {labels.num_labels:,} classes",
        "multi_label_classification": f"any of {labels.num_labels:,} labels",
        "regression": "a number" if labels.num_labels == 1 else f"{labels.num_labels} numbers",
    }[labels.problem_type]


def _thing(recipe: Recipe) -> str:
    thing = "an image" if recipe.task == "image-classification" else "a text"
    return "a pair of texts" if recipe.data.text_pair else thing


def _whence(recipe: Recipe) -> str:
    checkpoint = code(recipe.model.checkpoint)
    if is_hub_id(recipe.model.checkpoint):
        checkpoint = f"[{checkpoint}](https://huggingface.co/{recipe.model.checkpoint})"
    return f"{checkpoint}, fine-tuned (strategy `{recipe.strategy.kind}`) on {code(source(recipe))}."


def _teacher(recipe: Recipe) -> str:
    """A sentence about who taught it."""
    settings = recipe.distill
    if settings is None:
        return ""
    teacher = code(settings.teacher)
    if is_hub_id(settings.teacher):
        teacher = f"[{teacher}](https://huggingface.co/{settings.teacher})"
    what = {"logits": "answers", "features": "features", "both": "answers and features"}[settings.on]
    beside = "" if settings.alpha == 1 else " and from the labels"
    return f" It learned from the {what} of {teacher}{beside} (distillation, arXiv:1503.02531)."
