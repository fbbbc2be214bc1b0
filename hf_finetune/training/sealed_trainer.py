"""The Trainer's checkpoints as ours: sealed, strictly loaded, and the best ones kept as long as they are needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer

from hf_finetune.console import warn
from hf_finetune.disk import DiskError, Place, writing
from hf_finetune.training import checkpoints, rescue
from hf_finetune.training.agreement import as_the_first, by_the_first, together
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
    papers: Mapping[str, str] = {}  # of the run's folder, by name: they go where a checkpoint goes that has no room
    _staging: Path | None = None
    _fault: Exception | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._place = Place(self.args.output_dir)  # just made

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write a checkpoint beside its place, seal it, and rename it: whole, or not there.

        Raises:
            DiskError: the disk does not take it. Where another disk does, it is there; the message says which.
        """
        folder = Path(self.args.output_dir)
        needed = {self.state.best_global_step, *(self.best_steps(self.keep_best) if self.keep_best > 1 else ())}
        try:
            self._write_whole(folder, self._place, model, trial)
        except DiskError as fault:
            if not self._has_spared_room(folder, needed):
                raise self._rescued(fault, model, trial) from fault
            try:
                self._write_whole(folder, self._place, model, trial)
            except DiskError as again:
                raise self._rescued(again, model, trial) from again
        if self.args.should_save:
            checkpoints.rotate(folder, self.args.save_total_limit, needed)
        self.accelerator.wait_for_everyone()
        self._point_to_best()

    def _write_whole(self, folder: Path, place: Place, model: torch.nn.Module, trial: Any) -> None:
        """All processes write their parts, the first one seals them; a fault of one stops all."""
        name = f"checkpoint-{self.state.global_step}"
        self._staging, self._fault = folder / "partial", None
        together(place.check)
        if self.args.should_save:
            shutil.rmtree(self._staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            together(self._write, name, folder, model, trial)
            together(self._seal, name, folder)
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(self._staging, ignore_errors=True)  # a full disk has no room for torn files
            raise
        finally:
            self._staging = None

    def _write(self, name: str, folder: Path, model: torch.nn.Module, trial: Any) -> None:
        with writing(name, folder):
            super()._save_checkpoint(model, trial)
            if self._fault is not None:
                raise self._fault

    def _seal(self, name: str, folder: Path) -> None:
        if self.args.should_save and self._staging is not None:
            with writing(name, folder):
                checkpoints.seal(self._staging / name, folder / name)
                self._staging.rmdir()

    def _part(self, write: Callable[..., None], *args: Any) -> None:
        """A part of a checkpoint; its fault is kept until all processes have come to the same place."""
        if launcher_shards_the_model():  # every part is then the work of all processes together
            write(*args)
            return
        try:
            if self._fault is None:
                write(*args)
        except Exception as fault:
            self._fault = fault

    def _has_spared_room(self, folder: Path, needed: set[int | None]) -> bool:
        spared = False
        if self.args.should_save:
            with suppress(OSError):  # a disk that does not answer
                spared = rescue.spare_room(folder, self.args.save_total_limit, needed)
        return as_the_first(spared)

    def _rescued(self, fault: DiskError, model: torch.nn.Module, trial: Any) -> DiskError:
        """The fault, with what of the state of training is kept, and where; on another disk it is written now."""
        folder = as_the_first(rescue.rescue_folder(self._place, self.model) if self.args.should_save else None)
        kept = ""
        if folder is not None:
            try:
                self._write_whole(folder / "checkpoints", Place(folder / "checkpoints"), model, trial)
                if self.args.should_save:
                    best = self.state.best_global_step or self.state.global_step
                    rescue.complete(folder, self.papers, self._place.path / f"checkpoint-{best}")
                kept = rescue.where_it_is(folder, self.state.global_step, self._place.path)
            except DiskError:
                shutil.rmtree(folder, ignore_errors=True)
        return DiskError(f"{fault} {kept or rescue.what_is_kept(self._place.path)}")

    def _finalize_training(self, *args: Any) -> Any:
        """As the Trainer's, which with a limit of 1 deletes all but the best here: the run is not saved yet."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args)
        finally:
            self.args.save_total_limit = limit

    def best_steps(self, count: int | None = None) -> list[int]:
        """The saved steps with the best validation scores so far, the best first; of equals the earlier."""
        scores, sign = self._scores(), -1.0 if self.args.greater_is_better else 1.0
        return sorted(scores, key=lambda step: (sign * scores[step], step))[:count]

    def _scores(self) -> dict[int, float]:
        """The validation scores of saved steps so far, by step; what was there before the first one is not saved."""
        name = f"eval_{self.args.metric_for_best_model}"
        return {
            int(entry["step"]): float(entry[name])
            for entry in self.state.log_history
            if name in entry and entry[name] == entry[name] and entry.get("saved", entry["step"] > 0)
        }

    def _mark_unsaved(self) -> None:
        """The validation of this step leaves no checkpoint, and can be chosen neither now nor after a resume."""
        name = f"eval_{self.args.metric_for_best_model}"
        next(entry for entry in reversed(self.state.log_history) if name in entry)["saved"] = False

    def _choose_best_anew(self) -> None:
        """When a run goes on: where its best checkpoint has gone, the best one of those that are there is the best.

        A better one that came later has displaced it, and is damaged; or it lies on a disk that does not come back.
        """
        best = self.state.best_global_step
        found = by_the_first(self._best_that_is_whole)
        if found == best:
            return
        self.state.best_global_step = found
        self.state.best_metric = None if found is None else self._scores().get(found)
        now = "the next one that is validated will be it" if found is None else f"checkpoint-{found} is it now"
        warn(f"checkpoint-{best}, the best one so far, is gone or damaged: {now}.")

    def _best_that_is_whole(self) -> int | None:
        best, folder = self.state.best_global_step, Path(self.args.output_dir)
        candidates = [] if best is None else [best, *self.best_steps()]
        return next((step for step in candidates if checkpoints.damage(folder / f"checkpoint-{step}") is None), None)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        self._part(super()._save_optimizer_and_scheduler, output_dir)

    def _save_scaler(self, output_dir: str) -> None:
        self._part(super()._save_scaler, output_dir)

    def _save_rng_state(self, output_dir: str) -> None:
        self._part(super()._save_rng_state, output_dir)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        self._part(self._save_weights, output_dir, state_dict)

    def _save_weights(self, output_dir: str | None, state_dict: dict[str, Any] | None) -> None:
        if launcher_shards_the_model():
            super()._save(output_dir, state_dict)
            return
        if not self.args.should_save:  # the Trainer asks every process
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
        together(self._place.check)
        if self.state.best_global_step is None:  # nothing was validated: what was trained stays
            return
        best = Path(self._point_to_best())
        with writing(f"The best checkpoint, {best},", best.parent, "read"):
            if launcher_shards_the_model():
                super()._load_best_model()
            else:
                checkpoints.load_weights(self.model, best)

    def _point_to_best(self) -> str:
        """The best checkpoint by its step: a stored path would be wrong once the folder has moved."""
        best = f"checkpoint-{self.state.best_global_step or self.state.global_step}"
        self.state.best_model_checkpoint = str(Path(self.args.output_dir) / best)
        return self.state.best_model_checkpoint
