"""All training rows in one pass, whose last features stay for the run to come (`cache`): then their prefix has run.

Only where the time allows every row, and a run with `strategy=head` would keep features too: what is kept belongs to
whole splits, and has the run's number format and order. Middle depths are read off in the same pass and not kept.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_finetune import training
from hf_finetune.choice.depths import kept_at, mean_of
from hf_finetune.choice.measures import TOP, Depths
from hf_finetune.console import muted
from hf_finetune.evaluation.predict import longest_first
from hf_finetune.model.borders import find_replay
from hf_finetune.model.heads import output_layer
from hf_finetune.strategy import apply_strategy
from hf_finetune.strategy.prefix import frozen_prefix
from hf_finetune.training.precision import choose_precision, launcher_settings
from hf_finetune.training.prefix_plan import hindrance, too_little
from hf_finetune.training.prefix_probes import probes
from hf_finetune.training.prefix_setup import Making
from hf_finetune.training.prefix_split import NotKept, SplitFeatures
from hf_finetune.training.random_changes import key_of_changes

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes.schema import Recipe


def read_and_keep(recipe: Recipe, task: TaskData, loaded: LoadedModel, blocks: dict[str, str]) -> Depths | None:
    """Features of all training rows at these depths and at the head's input, which stay in the cache of prefixes.

    None, and nothing done, where they are there already, the cache has no room or is off, the run would not look for
    them, or the architecture keeps something else than the head's input.

    Args:
        recipe: with strategy=head.
        task: the data.
        loaded: the checkpoint with a plain head; everything but the head is frozen afterwards.
        blocks: names of modules by what they are called.
    """
    if recipe.cache.prefix == "off" or loaded.anatomy.head.parameters == () or recipe.model.head.kind != "linear":
        return None
    with tempfile.TemporaryDirectory() as place, launcher_settings(), _random_numbers_kept(), muted(set()):
        split = _split(recipe, task, loaded, Path(place))
        if split is None or split.prefix.replay.border.name != output_layer(loaded.model, loaded.anatomy):
            return None
        if split.known or split.room.lacking(split.meta.bytes) is not None:
            return None
        split.room.take(split.meta.bytes)
        began = time.perf_counter()
        try:
            with _seen_at(loaded, blocks) as seen:
                rows = split.features().rows
        except NotKept:
            return None
        split.trainer.compute_in(bf16=False, channels_last=False)
        if split.known or not all(sum(map(len, parts)) == len(rows) for parts in seen.values()):
            return None  # another process was faster, or a block's answers have not one row for each sample
        order = torch.from_numpy(longest_first(split.samples).copy())
        features = [_in_order(torch.cat(parts), order).numpy() for parts in seen.values()]
        top = rows.float().cpu().flatten(1).numpy()
        return Depths((*seen, TOP), [*features, top], (time.perf_counter() - began) / len(rows))


def _split(recipe: Recipe, task: TaskData, loaded: LoadedModel, place: Path) -> SplitFeatures | None:
    """The training split's place in the cache, as a run of this recipe would find it."""
    number_format = choose_precision("auto")
    rate = float(recipe.training.values()["learning_rate"])
    arguments = training.build_arguments(recipe, rate, place, number_format.name)
    training.fit_to_data(arguments, recipe, task, False)
    samples = training.make_samples(recipe, task, loaded, arguments.device)
    applied = apply_strategy(loaded, recipe)
    trainer = training.build_trainer(
        recipe, task, loaded, applied, arguments, samples, number_format.name, trust_remote_code=False
    )
    training.settle_format(trainer, number_format)
    changed = key_of_changes(recipe, task, arguments.device)
    prefix = frozen_prefix(applied)
    if prefix is None or changed or hindrance(recipe, trainer, samples, False) or too_little(prefix, 2.0, 1):
        return None
    replay = find_replay(applied.model, prefix.modules, applied.stages[0].multipliers, *probes(samples, trainer))
    if replay is None:
        return None
    return SplitFeatures(Making(recipe, task, loaded, trainer, samples, "", None), replay, prefix, 0)


@contextmanager
def _seen_at(loaded: LoadedModel, blocks: dict[str, str]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Of every pass inside, the pooled answers of the blocks, on the CPU."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in blocks}
    model: Any = loaded.model
    given: dict[str, Any] = {}
    handles = [model.register_forward_pre_hook(lambda _, __, inputs: given.update(inputs), with_kwargs=True)]

    def pool(answered: dict[str, Any]) -> None:
        rows = len(next(value for value in given.values() if torch.is_tensor(value)))
        for name, output in answered.items():
            part = mean_of(output, given, rows)
            if part is not None:
                found[name].append(part.cpu())

    for name, module in blocks.items():
        handles.append(model.get_submodule(module).register_forward_hook(kept_at(name, pool)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """A Trainer that is built sets the seeds of all generators."""
    state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])


def _in_order(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Rows that came in another order, back in their own."""
    out = torch.empty_like(values)
    out[order] = values
    return out
