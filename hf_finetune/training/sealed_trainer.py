"""The Trainer's checkpoints as ours: sealed, strictly loaded, and the best ones kept as long as they are needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer

from hf_finetune.training import checkpoints
from hf_finetune.training.ema import Ema
from hf_finetune.training.precision import launcher_shards_the_model

if TYPE_CHECKING:
    from hf_finetune.training.balance import Balance
    from hf_finetune.training.distill import Distillation


class SealedTrainer(Trainer):
    """Writes, rotates and loads checkpoints; see `checkpoints.py` for what transformers' own lack."""

    ema: Ema | None = None
    distillation: Distillation | None = None
    balance: Balance | None = None
    keep_best: int = 1
    _staging: Path | None = None

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write a checkpoint beside its place, seal it, and rename it: whole, or not there."""
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self._staging = folder / "partial"
        if self.args.should_save:
            shutil.rmtree(self._staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
        finally:
            staging, self._staging = self._staging, None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.seal(staging / name, folder / name)
            staging.rmdir()
            needed = {self.state.best_global_step, *(self.best_steps(self.keep_best) if self.keep_best > 1 else ())}
            checkpoints.rotate(folder, self.args.save_total_limit, needed)
        self.accelerator.wait_for_everyone()
        self._point_to_best()

    def best_steps(self, count: int) -> list[int]:
        """The steps with the best validation scores so far, the best first; of equals the earlier."""
        name = f"eval_{self.args.metric_for_best_model}"
        scores = {
            int(entry["step"]): float(entry[name])
            for entry in self.state.log_history
            if name in entry and entry[name] == entry[name]
        }
        sign = -1.0 if self.args.greater_is_better else 1.0
        return sorted(scores, key=lambda step: (sign * scores[step], step))[:count]

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if launcher_shards_the_model():
            super()._save(output_dir, state_dict)
            return
        folder = Path(output_dir or self.args.output_dir)
        checkpoints.save_weights(self.model, folder)
        for part in (self.ema, self.distillation, self.balance):
            if part is not None:
                part.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if launcher_shards_the_model():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        checkpoints.load_weights(self.model, Path(resume_from_checkpoint))
        for part in (self.ema, self.distillation, self.balance):
            if part is not None:
                part.load(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if launcher_shards_the_model():
            super()._load_best_model()
        else:
            checkpoints.load_weights(self.model, Path(self._point_to_best()))

    def _point_to_best(self) -> str:
        """The best checkpoint by its step: a stored path would be wrong once the folder has moved."""
        best = f"checkpoint-{self.state.best_global_step or self.state.global_step}"
        self.state.best_model_checkpoint = str(Path(self.args.output_dir) / best)
        return self.state.best_model_checkpoint
