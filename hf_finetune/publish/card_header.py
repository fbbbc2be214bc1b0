"""The model card's metadata, as the Hub reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_finetune.publish.card_facts import split_of_test
from hf_finetune.publish.local_places import is_hub_id

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe

NOT_SCORES = ("samples", "loss")
# The Hub's own names of metrics (hf.co/metrics), where ours say more.
_HUB_METRICS = {
    "macro_f1": "f1",
    "micro_f1": "f1",
    "weighted_f1": "f1",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "auc": "roc_auc",
}


def header(recipe: Recipe, metrics: dict[str, dict[str, Any]], name: str, adapter: bool, about: dict[str, Any]) -> str:
    """YAML between the dashes of a README.md.

    Args:
        recipe: with revisions pinned.
        metrics: as metrics.json holds them.
        name: of the model.
        adapter: whether weights of an adapter lie beside the base model.
        about: as about.json holds it.
    """
    from huggingface_hub import ModelCardData

    checkpoint, dataset = recipe.model.checkpoint, recipe.data.dataset
    on_hub = isinstance(dataset, str) and is_hub_id(dataset)
    base = is_hub_id(checkpoint) and recipe.strategy.kind != "scratch"
    scores = _scores(metrics.get("test", {}))
    results = _results(recipe, metrics["test"], scores, split_of_test(recipe, about)) if scores and on_hub else None
    data = ModelCardData(
        license="apache-2.0" if checkpoint.startswith("package:") else None,  # those that ship with hf_finetune
        library_name="transformers",
        pipeline_tag=None if recipe.tasks else recipe.task,
        base_model=checkpoint if base else None,
        base_model_relation=("adapter" if adapter else "finetune") if base else None,
        datasets=_datasets(recipe) or None,
        metrics=list(dict.fromkeys(_HUB_METRICS.get(metric, metric) for metric in scores)) or None,
        tags=["hf_finetune", recipe.strategy.kind],
        model_name=name if results else None,
        eval_results=results,
    )
    return data.to_yaml().strip()


def _scores(test: dict[str, Any]) -> dict[str, float]:
    return {
        metric: value
        for metric, value in test.items()
        if metric not in NOT_SCORES and isinstance(value, float) and value == value
    }


def _datasets(recipe: Recipe) -> list[str]:
    named = [recipe.data.dataset, *(task.data.dataset for task in recipe.tasks.values() if task.data is not None)]
    return list(dict.fromkeys(each for each in named if isinstance(each, str) and is_hub_id(each)))


def _results(recipe: Recipe, test: dict[str, Any], scores: dict[str, float], split: str | None) -> list[Any]:
    from huggingface_hub import EvalResult

    def named(metric: str) -> str:
        interval = test.get(f"{metric}_ci95")
        return f"{metric} (95% interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else metric

    dataset = str(recipe.data.dataset)
    return [
        EvalResult(
            task_type=recipe.task,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_config=recipe.data.config,
            dataset_split=split,
            dataset_revision=recipe.data.revision,
            metric_type=_HUB_METRICS.get(metric, metric),
            metric_name=named(metric),
            metric_value=round(value, 6),
        )
        for metric, value in scores.items()
    ]
