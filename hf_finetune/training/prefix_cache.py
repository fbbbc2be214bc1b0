"""The frozen prefix during a run: batches of rows become the features that are kept, in the stage that is in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.model.replay import GIVEN, Replay, attach
from hf_finetune.training.cached_samples import ROWS, SPLIT, CachedCollator, CachedSamples, Switch, real_batch

if TYPE_CHECKING:
    from hf_finetune.training.trainer import FinetuneTrainer


@dataclass(frozen=True)
class Features:
    """The features of one split.

    Args:
        rows: (N x views, ...), or (tokens, ...) of all texts in a row.
        starts: where each text starts in `rows`, and the end, (N + 1,); None for one row a sample.
        places: of the split's samples among those of `rows`, (n,), where these are more; None where they are its own.
    """

    rows: torch.Tensor
    starts: torch.Tensor | None = None
    places: torch.Tensor | None = None

    def at(self, places: np.ndarray | None) -> Features:
        """The same of a part of the samples, by their places, (n,); of all if None."""
        return replace(self, places=None if places is None else torch.from_numpy(places).to(self.rows.device))

    def of(self, numbers: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """What the border receives for a batch, (B, ...) float32, on the device of the numbers.

        Args:
            numbers: of the samples, (B,).
            mask: of texts, (B, length): features stand where it is 1, and zeros elsewhere.
        """
        places = numbers.to(self.rows.device)
        if self.places is not None:
            places = self.places[places]
        if self.starts is None:
            return self.rows.index_select(0, places).to(numbers.device).float()
        assert mask is not None
        begins, ends = self.starts[places], self.starts[places + 1]
        lengths = ends - begins
        before = torch.repeat_interleave(begins - (lengths.cumsum(0) - lengths), lengths)
        tokens = before + torch.arange(int(lengths.sum()), device=before.device)
        out = torch.zeros(*mask.shape, *self.rows.shape[1:], device=numbers.device)
        out[mask.bool()] = self.rows.index_select(0, tokens).to(numbers.device).float()
        return out


@dataclass(frozen=True)
class CachedStage:
    """What a stage starts from.

    Args:
        replay: runs the model behind the prefix.
        features: by the number of the split.
        head_alone: whether all blocks lie before the border, and a sample is one row.
    """

    replay: Replay
    features: Mapping[int, Features]
    head_alone: bool = False


class PrefixCache(TrainerCallback):
    """Turns rows into features before the model sees a batch; into real samples where the stage has no prefix.

    Args:
        trainer: whose batches they are.
        stages: of the strategy, in order; None where the prefix runs with every batch.
        splits: by their numbers.
        switch: of these samples.
        collate: of their batches.
    """

    def __init__(
        self,
        trainer: FinetuneTrainer,
        stages: Sequence[CachedStage | None],
        splits: Sequence[CachedSamples | None],
        switch: Switch,
        collate: CachedCollator,
    ) -> None:
        self.trainer = trainer
        self.stages = stages
        self.splits = splits
        self.switch = switch
        self.collate = collate
        self.facts: list[dict[str, Any] | None] = [None] * len(stages)
        self.swept: dict[str, Any] | None = None  # what a sweep of heads has chosen
        self._index: int | None = None
        self._follow()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Follow the strategy into the stage in which training starts or goes on."""
        self.trainer.pace.kept_rows = all(stage is not None for stage in self.stages)
        self._follow()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Follow the strategy into the next stage."""
        self._follow()

    def prepare(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A batch of rows with the features in it; batches of real samples are left as they are.

        Batches that were loaded ahead of a stage's border still hold what the stage before it took.
        """
        rows = inputs.get(ROWS)
        if rows is None:
            return inputs
        number = inputs[SPLIT]
        features = self.stage.features.get(number) if self.stage is not None else None
        if features is None or self.trainer.tta != "none":
            real = self.splits[number]
            assert real is not None  # its batch is here
            return real_batch(real, rows, self.collate)
        rest = {name: value for name, value in inputs.items() if name not in (ROWS, SPLIT)}
        return {**rest, GIVEN: features.of(rows, rest.get("attention_mask"))}

    def collate_prepared(self, samples: Any) -> dict[str, Any]:
        """A batch with the features in it, for a pass outside of the trainer."""
        return self.prepare(self.collate(samples))

    @property
    def stage(self) -> CachedStage | None:
        """What batches start from now; None for real samples."""
        return self.stages[self._index or 0]

    @property
    def head_alone(self) -> bool:
        """Whether nothing but a head computes now."""
        return self.stage is not None and self.stage.head_alone

    def release(self) -> None:
        """After the run: the model answers as any other."""
        attach(self.trainer.applied.model, None)
        self.switch.turn(False)

    def _follow(self) -> None:
        staged = self.trainer.stages
        index = (staged.current or 0) if staged is not None else 0
        if index == self._index:
            return
        self._index = index
        stage = self.stages[index]
        attach(self.trainer.applied.model, None if stage is None else stage.replay)
        self.switch.turn(stage is not None)


def starts_of(samples: Any) -> np.ndarray:
    """Where the tokens of each text start when all stand in a row, and the end, (N + 1,)."""
    return np.concatenate([[0], np.cumsum(samples.lengths, dtype=np.int64)])
