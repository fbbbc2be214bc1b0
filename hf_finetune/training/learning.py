"""What learns learns: fitted at once, or step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_utils import TrainOutput

from hf_finetune.recipes import Recipe
from hf_finetune.training.averaging import keep_best_average
from hf_finetune.training.features import Fitted, fit_features
from hf_finetune.training.folder import RunFolder
from hf_finetune.training.head_lbfgs import fit_head
from hf_finetune.training.head_sweep import sweep_head
from hf_finetune.training.precision import launcher_shards_the_model
from hf_finetune.training.rescue import papers_of
from hf_finetune.training.setup import Samples
from hf_finetune.training.trainer import FinetuneTrainer
from hf_finetune.training.watchdog import watching

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.strategy import Applied


def learn(
    recipe: Recipe,
    folder: RunFolder,
    task: TaskData,
    loaded: LoadedModel,
    applied: Applied,
    trainer: FinetuneTrainer,
    samples: Samples,
    *,
    checkpoint: Path | None,
    swept: dict[str, Any] | None,
) -> TrainOutput | Fitted:
    """Fit or train as the recipe says; afterwards the model is the one that is kept, and answers in the data's units.

    Args:
        recipe: how.
        folder: of the run; what a sweep over heads found is written there.
        task, loaded, applied, samples: data, checkpoint, strategy and what the model takes.
        trainer: ready to start.
        checkpoint: to continue from; None for a start.
        swept: what a sweep found before the run was interrupted.
    """
    if recipe.strategy.kind == "features":
        return fit_features(recipe, task, loaded, applied, trainer, samples)
    outcome: TrainOutput | Fitted
    if getattr(recipe.strategy, "solver", "adamw") == "lbfgs":
        outcome = fit_head(recipe, trainer)
    else:
        folder.record(**sweep_head(recipe, trainer, swept))
        trainer.papers = papers_of(folder)
        with watching(trainer):
            outcome = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        keep_best_average(recipe, trainer, samples.validation)
    if not launcher_shards_the_model():  # else when it is saved
        trainer.give_targets_their_unit()
    return outcome
