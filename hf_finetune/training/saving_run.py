"""The end of a run: everything that it leaves, written by one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_finetune.console import is_main_process
from hf_finetune.publish import save_run
from hf_finetune.recipes import Recipe
from hf_finetune.training.agreement import together
from hf_finetune.training.folder import RunFolder
from hf_finetune.training.precision import launcher_shards_the_model
from hf_finetune.training.rescue import writing_the_run
from hf_finetune.training.scoring import Report
from hf_finetune.training.sharding import gather_weights
from hf_finetune.training.teaching import pin_teacher
from hf_finetune.training.trainer import FinetuneTrainer

if TYPE_CHECKING:
    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.strategy import Applied


def save(
    recipe: Recipe,
    folder: RunFolder,
    task: TaskData,
    loaded: LoadedModel,
    applied: Applied,
    trainer: FinetuneTrainer,
    report: Report,
    table: str,
    number_format: str,
) -> None:
    """Everything that the run leaves, written by rank 0; the others wait for it."""
    trainer.release_prefix()
    trainer.compute_in(bf16=False, channels_last=False)  # what is saved lies in memory as everyone expects it
    recipe = pin_teacher(recipe, trainer.distillation)
    if launcher_shards_the_model():
        gather_weights(applied.model)

    def write() -> None:
        trainer.give_targets_their_unit()  # of whole weights
        with writing_the_run(folder):
            save_run(
                folder.path,
                recipe=recipe,
                task=task,
                loaded=loaded,
                applied=applied,
                report=report,
                table=table,
                history=trainer.state.log_history,
                number_format=number_format,
            )

    together(write if is_main_process() else lambda: None)
