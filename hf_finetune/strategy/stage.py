"""One stage: who learns, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_finetune.strategy.frozen import batch_norms, held_still, modules_of

if TYPE_CHECKING:
    from torch import nn

    from hf_finetune.model.anatomy import Anatomy


@dataclass(frozen=True)
class LearningStage:
    """Who learns in a stage, and how fast. Most strategies have one stage.

    Args:
        multipliers: rate over the stage's rate, above 0, of every parameter that learns, by its name in the model. All
            other parameters are frozen.
        still: names of the modules that stay in eval mode.
        who: who learns, in words, where the parts alone do not say it ("biases, norms").
        learning_rate: of this stage; None for the run's own.
        epochs: of this stage; None for all of the run's.
    """

    multipliers: Mapping[str, float]
    still: tuple[str, ...] = ()
    who: str = ""
    learning_rate: float | None = None
    epochs: float | None = None

    def rate(self, parameter: str, lr: float) -> float:
        """The learning rate of a parameter, 0 where it is frozen.

        Args:
            parameter: as in `model.named_parameters()`.
            lr: the run's rate.
        """
        return (lr if self.learning_rate is None else self.learning_rate) * self.multipliers.get(parameter, 0.0)


def stage_of(
    model: nn.Module,
    anatomy: Anatomy,
    multipliers: Mapping[str, float],
    *,
    statistics_stay: bool = False,
    who: str = "",
    learning_rate: float | None = None,
    epochs: float | None = None,
) -> LearningStage:
    """A stage of a model without adapters; parts in which nothing learns are held still.

    Args:
        model: the model.
        anatomy: its parts.
        multipliers: by parameter; 0 freezes.
        statistics_stay: BatchNorm statistics outside of the head do not move, also where its scale and bias learn.
        who: see `LearningStage`.
        learning_rate: see `LearningStage`.
        epochs: see `LearningStage`.
    """
    learning = {name: value for name, value in multipliers.items() if value > 0}
    frozen = [part for part in anatomy.parts if learning.keys().isdisjoint(part.parameters)]
    # What was held still before (model.batch_norm=frozen) stays so in every stage.
    still = {*modules_of(model, frozen), *held_still(model)}
    if statistics_stay:
        still |= set(batch_norms(model, outside=anatomy.head.modules))
    return LearningStage(learning, tuple(sorted(still)), who, learning_rate, epochs)
