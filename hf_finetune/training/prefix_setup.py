"""From a trainer to one whose frozen prefix runs once: probe, fill, and put rows in the place of samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from hf_finetune.console import say
from hf_finetune.disk import size_in_words
from hf_finetune.errors import UserError
from hf_finetune.model.borders import find_replay
from hf_finetune.recipes.schema import Recipe
from hf_finetune.strategy.frozen import require_gradients
from hf_finetune.strategy.prefix import FrozenPrefix, frozen_prefix
from hf_finetune.training import prefix_plan as plan
from hf_finetune.training.agreement import as_the_first, together
from hf_finetune.training.cached_samples import CachedCollator, CachedSamples, Switch
from hf_finetune.training.prefix_cache import CachedStage, PrefixCache
from hf_finetune.training.prefix_probes import probes
from hf_finetune.training.prefix_room import Room
from hf_finetune.training.prefix_split import NotKept, SplitFeatures, first_on_machine
from hf_finetune.training.random_changes import key_of_changes

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.training.setup import Samples
    from hf_finetune.training.trainer import FinetuneTrainer

Begun = Sequence[dict[str, Any] | None] | None


def cache_prefix(
    recipe: Recipe,
    task: TaskData,
    loaded: LoadedModel,
    trainer: FinetuneTrainer,
    samples: Samples,
    begun: Begun = None,
) -> Samples:
    """The samples, with rows of kept features in their place where that saves work; the trainer reads them too.

    One line says what is kept, or why nothing is where something could be.

    Args:
        recipe: its cache section, and how long the run is.
        task: the data.
        loaded: the checkpoint.
        trainer: ready to start.
        samples: the real ones.
        begun: what `kept_facts` said when the run began that this one goes on with; it goes on alike.

    Raises:
        UserError: `cache.prefix=on`, or the run began so, and it cannot be.
    """
    if recipe.cache.prefix == "off":
        return samples
    changed = key_of_changes(recipe, task, trainer.args.device)
    with torch.random.fork_rng():
        return Making(recipe, task, loaded, trainer, samples, changed, begun).made()


def kept_facts(trainer: FinetuneTrainer) -> list[dict[str, Any] | None]:
    """Of each stage what is kept, in which format, under which key; None where the prefix runs with every batch."""
    return [None] * len(trainer.applied.stages) if trainer.prefix is None else trainer.prefix.facts


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
        begun: Begun,
    ) -> None:
        self.recipe, self.task, self.loaded, self.trainer = recipe, task, loaded, trainer
        self.real = samples
        self.changed = changed
        self.applied = trainer.applied
        self.views = recipe.cache.views if changed and recipe.cache.views else 1
        begun = as_the_first(begun)  # not every machine may see the run's folder
        self.begun = None if begun is None or len(begun) != len(self.applied.stages) else begun
        self.room = Room(recipe)
        self.facts: list[dict[str, Any] | None] = [None] * len(self.applied.stages)

    @cached_property
    def pool(self) -> Any:
        """Samples of the rows that all folds have in common."""
        assert self.real.pool is not None
        return self.real.pool()

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

    def _began_so(self, index: int | None = None) -> bool:
        """Whether the run that this one goes on with kept features, in that stage or in any."""
        kept = self.begun or []
        return any(kept) if index is None else index < len(kept) and kept[index] is not None

    def _without(self, why: str, *, quiet: bool = False, index: int | None = None) -> Samples:
        stage = "" if index is None else plan.stage_in_words(self.applied, index)
        if self.recipe.cache.prefix == "on":
            raise UserError(
                f"cache.prefix=on: {stage}the frozen prefix cannot run once: {why}. Use auto, or change it."
            )
        if self._began_so(index):
            otherwise = "cache.prefix=off goes on without them, with other roundings"
            if self.recipe.cache.views is not None:  # without them it would see other images
                otherwise = "another output_dir starts anew"
            raise UserError(
                f"{stage}this run began with kept features, and now the frozen prefix cannot run once: {why}. To go on "
                f"exactly, change that; {otherwise}."
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
        insisting = self.recipe.cache.prefix == "on" or self._began_so(index)
        if self.begun is not None and not insisting:
            self._without("as this run began", index=index)
            return None
        self.applied.enter(index)
        rows, args = len(self.real.train), self.trainer.args  # type: ignore[arg-type]
        passes = plan.passes_of(self.recipe, self.applied, index, args, rows)
        passes *= 1 if self.changed else plan.runs_of(self.recipe)
        little = plan.too_little(prefix, passes, self.views) if not insisting else None
        if little is not None and "read" not in little:
            self._without(little, index=index)
            return None
        multipliers = self.applied.stages[index].multipliers
        replay = together(
            find_replay, self.applied.model, prefix.modules, multipliers, *probes(self.real, self.trainer)
        )
        if not as_the_first(replay is not None) or replay is None:
            self._without("this architecture does not run from its middle", index=index)
            return None
        last = index == len(self.applied.stages) - 1
        every = [SplitFeatures(self, replay, prefix, number) for number in range(4) if self._has(number, last)]
        distinct = {split.key: split for split in reversed(every)}  # the same rows have one entry
        splits = list(distinct.values())[::-1]
        why = self._too_much(splits, little)
        if why is not None:
            self._without(why, index=index)
            return None
        self._announce(index, prefix, splits)
        started = time.perf_counter()
        try:
            found = {split.key: split.features() for split in splits}
        except NotKept as fault:
            self.facts[index] = None
            self._without(str(fault), index=index)
            return None
        if not all(split.known for split in splits):
            samples = sum(len(split.samples) * split.views for split in splits if not split.known)
            seconds = time.perf_counter() - started
            say(f"{words}frozen prefix: {samples:,} samples in {seconds:.1f} s, {samples / seconds:.0f} a second")
        features = {split.number: found[split.key].at(split.places) for split in every}
        return CachedStage(replay, features, prefix.blocks == prefix.of and replay.bare)

    def _too_much(self, splits: Sequence[SplitFeatures], little: str | None) -> str | None:
        """Why a stage's features are not worth what is not yet there of them, or None; then there is room for them."""
        for split in splits:
            split.known = as_the_first(split.known)
        if little is not None and not all(split.known for split in splits):
            return little
        self.room.wanted |= {split.key for split in splits}
        return as_the_first(self.room.lacking(_missing(splits)) if first_on_machine() else None)

    def _announce(self, index: int, prefix: FrozenPrefix, splits: Sequence[SplitFeatures]) -> None:
        """Say what a stage keeps, and write it down; what was not used for longest makes room where it must."""
        words, needed = plan.stage_in_words(self.applied, index), _missing(splits)
        freed = self.room.take(needed) if first_on_machine() else 0
        if freed:
            said = size_in_words(freed)
            say(f"{words}frozen prefix: {said} of features not used for longest made room")
        size, rows = sum(split.meta.bytes for split in splits), sum(split.meta.rows for split in splits)
        found = sum(split.known for split in splits)
        shape = splits[0].meta.sizes
        line = plan.kept_in_words(prefix, shape, rows, size, self.views, found, len(splits), needed)
        say(f"{words}frozen prefix: {line}")
        self.facts[index] = {"blocks": prefix.blocks, "format": splits[0].format, "key": splits[0].key}
        then = self.begun[index] if self.begun is not None else None
        if then is not None and then != self.facts[index]:
            say(f"{words}note: this run began with {then} and goes on with {self.facts[index]}.")

    def _has(self, number: int, last: bool) -> bool:
        if number >= 2:
            return last and self.real.splits[number] is not None and self.recipe.evaluation.tta == "none"
        return True

    def _in_use(self, stages: list[CachedStage | None]) -> Samples:
        switch, collate = Switch(), CachedCollator(self.real.collate)
        collate.tokens = any(stage is not None and not stage.replay.bare for stage in stages)
        cached = [
            None if real is None else CachedSamples(real, number, switch, 1 if number else self.views)
            for number, real in enumerate(self.real.splits)
        ]
        train, validation, test, held_out = cached
        assert train is not None and validation is not None
        trainer = self.trainer
        trainer.train_dataset, trainer.eval_dataset, trainer.data_collator = train, validation, collate
        if all(stages):
            trainer.args.dataloader_num_workers = 0  # rows need no loading
        trainer.prefix = PrefixCache(trainer, stages, cached, switch, collate)
        trainer.prefix.facts = self.facts
        trainer.add_callback(trainer.prefix)
        return replace(
            self.real, train=train, validation=validation, test=test, collate=collate, held_out=held_out, pool=None
        )


def _missing(splits: Sequence[SplitFeatures]) -> int:
    """Bytes of those that are not there yet."""
    return sum(split.meta.bytes for split in splits if not split.known)
