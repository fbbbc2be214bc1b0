"""From a trainer to one whose frozen prefix runs once: probe, fill, and put rows in the place of samples."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from hf_finetune import prefix_store as store
from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.model.borders import find_replay
from hf_finetune.recipes.schema import Recipe
from hf_finetune.strategy.frozen import require_gradients
from hf_finetune.strategy.prefix import FrozenPrefix, frozen_prefix
from hf_finetune.training import prefix_plan as plan
from hf_finetune.training.agreement import as_the_first
from hf_finetune.training.cached_samples import CachedCollator, CachedSamples, Switch
from hf_finetune.training.prefix_cache import CachedStage, PrefixCache
from hf_finetune.training.prefix_split import SplitFeatures, probe_rows
from hf_finetune.training.setup import image_augment

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.training.setup import Samples
    from hf_finetune.training.trainer import FinetuneTrainer


def cache_prefix(
    recipe: Recipe,
    task: TaskData,
    loaded: LoadedModel,
    trainer: FinetuneTrainer,
    samples: Samples,
) -> Samples:
    """The samples, with rows of kept features in their place where that saves work; the trainer reads them too.

    One line says what is kept, or why nothing is where something could be.

    Args:
        recipe: its cache section, and how long the run is.
        task: the data.
        loaded: the checkpoint.
        trainer: ready to start.
        samples: the real ones.

    Raises:
        UserError: `cache.prefix=on`, and it cannot be.
    """
    if recipe.cache.prefix == "off":
        return samples
    augment = image_augment(recipe, task)
    changed = "" if augment is None else augment.model_dump_json()
    with torch.random.fork_rng():
        return Making(recipe, task, loaded, trainer, samples, changed).made()


class Making:
    """What a run's features are made of; see `cache_prefix`."""

    def __init__(
        self,
        recipe: Recipe,
        task: TaskData,
        loaded: LoadedModel,
        trainer: FinetuneTrainer,
        samples: Samples,
        changed: str,
    ) -> None:
        self.recipe, self.task, self.loaded, self.trainer = recipe, task, loaded, trainer
        self.real = samples
        self.changed = changed
        self.applied = trainer.applied
        self.views = recipe.cache.views if changed and recipe.cache.views else 1
        self.room = as_the_first(plan.limit_of(recipe))

    def made(self) -> Samples:
        """See `cache_prefix`."""
        prefixes = [frozen_prefix(self.applied, index) for index in range(len(self.applied.stages))]
        if not any(prefix is not None and prefix.blocks for prefix in prefixes):
            return self._without("nothing is frozen from the stem on", quiet=True)
        hindrance = as_the_first(plan.hindrance(self.recipe, self.trainer, self.real, bool(self.changed)))
        if hindrance is not None:
            return self._without(hindrance)
        stages = [None if prefix is None else self._stage(index, prefix) for index, prefix in enumerate(prefixes)]
        if len(stages) > 1:
            require_gradients(self.applied.model, self.applied.learning)
        if not any(stages):
            return self.real
        return self._in_use(stages)

    def _without(self, why: str, *, quiet: bool = False, stage: str = "") -> Samples:
        if self.recipe.cache.prefix == "on":
            raise UserError(
                f"cache.prefix=on: {stage}the frozen prefix cannot run once: {why}. Use auto, or change it."
            )
        if self.changed and self.recipe.cache.views is not None:
            raise UserError(
                f"cache.views={self.recipe.cache.views}: {stage}no views can be kept: {why}. Remove it, or change that."
            )
        if not quiet:
            say(f"{stage}frozen prefix: runs with every batch: {why}")
        return self.real

    def _stage(self, index: int, prefix: FrozenPrefix) -> CachedStage | None:
        """What a stage starts from, filled; None where its prefix runs with every batch, after a line about it."""
        words = plan.stage_in_words(self.applied, index)
        if not prefix.blocks:
            return None
        self.applied.enter(index)
        rows, args = len(self.real.train), self.trainer.args  # type: ignore[arg-type]
        passes = plan.passes_of(self.recipe, self.applied, index, args, rows)
        little = plan.too_little(prefix, passes, self.views) if self.recipe.cache.prefix == "auto" else None
        if little is not None and "read" not in little:
            self._without(little, stage=words)
            return None
        replay = find_replay(
            self.applied.model, prefix.modules, self.applied.stages[index].multipliers, *self._probes()
        )
        if not as_the_first(replay is not None) or replay is None:
            self._without("this architecture does not run from its middle", stage=words)
            return None
        last = index == len(self.applied.stages) - 1
        splits = [SplitFeatures(self, replay, prefix, number) for number in range(3) if self._has(number, last)]
        for split in splits:
            split.known = as_the_first(split.known)
        found = sum(split.known for split in splits)
        if little is not None and found < len(splits):
            self._without(little, stage=words)
            return None
        needed = sum(split.meta.bytes for split in splits if not split.known)
        if needed > self.room:
            why = f"it takes {store.size_in_words(needed)} of disk, and {store.size_in_words(self.room)} may be used"
            self._without(f"{why} (cache.max_gb, cache.dtype=bf16)", stage=words)
            return None
        self.room -= needed
        size, total = sum(split.meta.bytes for split in splits), sum(split.meta.rows for split in splits)
        line = plan.kept_in_words(prefix, splits[0].meta.sizes, total, size, self.views, found, len(splits))
        say(f"{words}frozen prefix: {line}")
        started = time.perf_counter()
        features = {split.number: split.features() for split in splits}
        if found < len(splits):
            samples = sum(len(split.samples) * split.views for split in splits if not split.known)
            seconds = time.perf_counter() - started
            say(f"{words}frozen prefix: {samples:,} samples in {seconds:.1f} s, {samples / seconds:.0f} a second")
        return CachedStage(replay, features, prefix.blocks == prefix.of and replay.bare)

    def _has(self, number: int, last: bool) -> bool:
        if number == 2:
            return last and self.real.test is not None and self.recipe.evaluation.tta == "none"
        return True

    def _probes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Two batches of unlike size: two samples and three, of texts also of another length."""
        rows = probe_rows(self.real.train)
        items = [self.real.train[row] for row in rows]
        shorter = [
            {
                name: value[: max(2, len(value) // 2)] if isinstance(value, list) else value
                for name, value in item.items()
            }
            for item in (items[:2])
        ]
        batches = []
        for chosen in (shorter, items):
            batch = self.real.collate(chosen)
            batch.pop("labels", None)
            batches.append(batch)
        small, large = batches
        if "input_ids" in small and small["input_ids"].shape[1] == large["input_ids"].shape[1]:
            width = int(small["attention_mask"].sum(1).max()) - 1  # narrower than the other, whatever they hold
            small = {name: value[:, :width] for name, value in small.items()}
        return tuple(self.trainer._prepare_inputs(batch) for batch in (small, large))  # type: ignore[return-value]

    def _in_use(self, stages: list[CachedStage | None]) -> Samples:
        switch, collate = Switch(), CachedCollator(self.real.collate)
        collate.tokens = any(stage is not None and not stage.replay.bare for stage in stages)
        train = CachedSamples(self.real.train, 0, switch, self.views)
        validation = CachedSamples(self.real.validation, 1, switch)
        test = None if self.real.test is None else CachedSamples(self.real.test, 2, switch)
        trainer = self.trainer
        trainer.train_dataset, trainer.eval_dataset, trainer.data_collator = train, validation, collate
        if all(stages):
            trainer.args.dataloader_num_workers = 0  # rows need no loading
        trainer.prefix = PrefixCache(trainer, stages, [s for s in (train, validation, test) if s], switch, collate)
        trainer.add_callback(trainer.prefix)
        return replace(self.real, train=train, validation=validation, test=test, collate=collate)
