"""The model card: what the model is, what it scored and how sure that is, how to use it, how it was made."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.data import MEMORY
from hf_finetune.publish.code_span import code
from hf_finetune.recipes.schema import VIEWS

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace
    from hf_finetune.recipes import Recipe

_NOT_SCORES = ("samples", "loss")


def model_card(
    recipe: Recipe,
    labels: LabelSpace,
    metrics: dict[str, dict[str, Any]],
    table: str,
    *,
    own_code: bool = False,
) -> str:
    """Text of README.md, its YAML header as the Hub reads it.

    Args:
        recipe: with revisions pinned.
        labels: what the model answers.
        metrics: as metrics.json holds them.
        table: the strategy's table.
        own_code: whether the model's code lies beside its weights.
    """
    name = recipe.output_dir.rstrip("/").rsplit("/", 1)[-1] or "model"
    split = "test" if "test" in metrics else "validation"
    parts = [
        f"---\n{_header(recipe, metrics, name)}\n---",
        f"# {name}",
        _what(recipe, labels),
        f"## Scores\n\n{score_table(metrics[split], split)}" if split in metrics else "",
        f"## How to use it\n\n{_usage(recipe, name, own_code)}",
        _beyond_pipelines(recipe),
        _no_probabilities(metrics, labels),
        f"## How it was made\n\n{_how(recipe)}",
        f"### What learned\n\n```text\n{table.strip()}\n```" if table.strip() else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def score_table(scores: dict[str, Any], split: str) -> str:
    """Metrics of a split and their 95% intervals, as Markdown."""
    lines = ["| metric | value | 95% interval |", "|---|---|---|"]
    for name, value in scores.items():
        if name in _NOT_SCORES or name.endswith(("_ci95", "_samples")):
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


def is_hub_id(name: str) -> bool:
    """Whether a checkpoint's or data set's name means one of the Hub: `name` or `owner/name`, and no file here."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name) is not None and not Path(name).exists()


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) and value == value else "undefined"


def _header(recipe: Recipe, metrics: dict[str, dict[str, Any]], name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    checkpoint, dataset = recipe.model.checkpoint, recipe.data.dataset
    on_hub = isinstance(dataset, str) and is_hub_id(dataset)
    scores = {
        metric: value
        for metric, value in metrics.get("test", {}).items()
        if metric not in _NOT_SCORES and isinstance(value, float) and value == value
    }
    results = [
        EvalResult(
            task_type=recipe.task,
            dataset_type=str(dataset),
            dataset_name=str(dataset),
            dataset_config=recipe.data.config,
            dataset_split=str(recipe.data.test_split),
            metric_type=metric,
            metric_value=round(value, 6),
        )
        for metric, value in scores.items()
    ]
    data = ModelCardData(
        base_model=checkpoint if is_hub_id(checkpoint) else None,
        datasets=[str(dataset)] if on_hub else None,
        library_name="transformers",
        pipeline_tag=None if recipe.tasks else recipe.task,
        tags=["hf_finetune", recipe.strategy.kind],
        model_name=name if results and on_hub else None,
        eval_results=(results or None) if on_hub else None,
    )
    return data.to_yaml().strip()


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
    return f"{checkpoint}, fine-tuned (strategy `{recipe.strategy.kind}`) on {code(_source(recipe))}."


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


def _source(recipe: Recipe) -> str:
    dataset = recipe.data.dataset
    if dataset == MEMORY:
        return "data given in memory"
    if isinstance(dataset, dict):
        listed = {split: (files,) if isinstance(files, str) else files for split, files in dataset.items()}
        return ", ".join(f"{split}: {' '.join(files)}" for split, files in listed.items())
    return dataset if isinstance(dataset, str) else ", ".join(dataset)


def _usage_of_tasks(recipe: Recipe, name: str) -> str:
    image = recipe.task == "image-classification"
    kind, reads = ("AutoImageProcessor", "image") if image else ("AutoTokenizer", "text")
    if recipe.data.text_pair and not image:
        reads = "text, text_pair"
    return (
        f"```python\nfrom transformers import AutoModel, {kind}\n\n"
        f'model = AutoModel.from_pretrained("{name}", trust_remote_code=True).eval()\n'
        f'processor = {kind}.from_pretrained("{name}", trust_remote_code=True)\n'
        f'print(model.decode(model(**processor({reads}, return_tensors="pt")).logits))\n```\n\n'
        "It prints an answer for each task. `pipeline()` knows no several tasks. The model's code is `multi_task.py` "
        "and what it imports, beside the weights, which the flag lets run.\n\n"
        f"Or, in batches and to a file: `hf-finetune predict {shlex.quote(name)} INPUT... --out predictions.csv`"
    )


def _usage(recipe: Recipe, name: str, own_code: bool) -> str:
    if recipe.tasks:
        return _usage_of_tasks(recipe, name)
    example = '"image.jpg"' if recipe.task == "image-classification" else '"a text"'
    if recipe.data.text_pair:
        example = '{"text": "one text", "text_pair": "another"}'
    trust = ", trust_remote_code=True" if own_code else ""
    own = (
        "\n\nThe model's head or pooling is not one of transformers': its code is `custom_head.py` and "
        "`custom_layers.py` beside the weights, which the flag lets run."
    )
    return (
        f'```python\nfrom transformers import pipeline\n\nmodel = pipeline("{recipe.task}", model="{name}"{trust})\n'
        f"print(model({example}))\n```\n\n"
        f"Or, in batches and to a file: `hf-finetune predict {shlex.quote(name)} INPUT... --out predictions.csv`"
        + own
        * own_code
    )


def _beyond_pipelines(recipe: Recipe) -> str:
    """What a run's own predictions do and a pipeline does not."""
    notes = []
    if recipe.data.long_text == "windows":
        notes.append(
            f"Texts longer than the model takes were read in windows that overlap by {recipe.data.window_overlap:.0%}, "
            "and the windows' logits averaged. `pipeline()` knows no windows: it reads a text whole, and fails beyond "
            "the model's own limit."
        )
    if (tta := recipe.evaluation.tta) != "none":
        notes.append(
            f"The scores and `predictions.parquet` average the logits over {VIEWS[tta]} views of each image "
            f"(`evaluation.tta={tta}`). `pipeline()` sees one view, so its answers differ a "
            "little; `hf-finetune evaluate FOLDER evaluation.tta=none` scores that."
        )
    return " ".join([*notes, "`hf-finetune predict` and `Run.predict` do it as the run did."]) if notes else ""


def _no_probabilities(metrics: dict[str, dict[str, Any]], labels: LabelSpace) -> str:
    """Of a fit whose decision values stand where a classifier's logits are."""
    classifier = metrics.get("train", {}).get("classifier")
    if classifier not in ("ridge", "svm") or labels.problem_type == "regression":
        return ""
    return (
        f"The head was fitted by scikit-learn ({classifier}): its logits are decision values. The scores made of them "
        "rank the classes, and are no calibrated probabilities."
    )


def _how(recipe: Recipe) -> str:
    return (
        "The whole recipe, with the revisions that were loaded, is `recipe.yaml` beside this file. Run it with\n\n"
        "```\naccelerate launch hf_finetune/run.py recipe=recipe.yaml output_dir=another_folder\n```\n\n"
        "(or `hf-finetune train recipe=recipe.yaml ...` where hf_finetune is installed). Every test prediction is in\n"
        "`predictions.parquet`, every score in `metrics.json`."
    )
