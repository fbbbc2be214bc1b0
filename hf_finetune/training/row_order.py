"""The order of a run's training rows, where it is not a plain shuffle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch.utils.data import Sampler
from transformers import TrainingArguments

from hf_finetune.data.streamed import is_streamed
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.length_groups import length_groups
from hf_finetune.training.mixed_sources import order_of_sources
from hf_finetune.training.sampling import BalancedSampler
from hf_finetune.training.stream_order import StreamOrder, fit_workers

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.data.streamed import StreamedRows


def order_of_rows(recipe: Recipe, task: TaskData, arguments: TrainingArguments, samples: Any) -> Sampler[int] | None:
    """The order of the training rows, where it is not a plain shuffle."""
    if recipe.loss.sampling == "balanced":
        return BalancedSampler(task.train["label"], recipe.seed)
    if is_streamed(task.train):
        order = StreamOrder.of(cast("StreamedRows", task.train), arguments, recipe.seed)
        fit_workers(order, arguments, "dataloader_num_workers" in recipe.training.values())
        return order
    if (mixed := order_of_sources(task, recipe.seed)) is not None:
        return mixed
    # transformers' own group_by_length draws from the global generator: a resumed run would see other rows.
    given = recipe.training.values().get("train_sampling_strategy", "group_by_length")
    return length_groups(samples.train, arguments, recipe.seed) if given == "group_by_length" else None
