"""What transformers' Trainer forgets in a checkpoint, so that the rest is as if training had not stopped.

- The loss of the steps since the last log: the next logged loss, and with it the mean of the run, left them out.
- That training was over: early stopping, `max_steps` or a time budget had ended it, the run was killed before it was
  scored, and training went on for another step or epoch.
- What comes at the end of an epoch: a checkpoint written in its last step was taken for one behind its end, and a log
  or an evaluation of the epoch was left out.
- The order of the callbacks: what it restores it puts behind the others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerState
from transformers.trainer_utils import SaveStrategy

from hf_finetune.training.account import account_of
from hf_finetune.training.sealed_trainer import SealedTrainer

RUNNING = "running_loss.json"


class ExactTrainer(SealedTrainer):
    """A Trainer that goes on where its checkpoint was written, in what it logs too."""

    _left: dict[str, Any] | None = None  # of the checkpoint that training goes on from, until it is taken up
    _over = False
    _asked_at = -1
    _save_later = False
    closing = False  # whether what belongs to the end of an epoch, or of training, is still to come after this step

    def _init_training_state(self, max_steps: int, *rest: Any) -> tuple[int, int]:
        found: tuple[int, int] = super()._init_training_state(max_steps, *rest)
        folder = rest[2]
        self._left, self._over, self._asked_at, self._save_later = None, False, -1, False
        if folder is not None:
            self._choose_best_anew()
            self._point_to_best()  # the first checkpoint was written before it could be pointed to
            self._left = _read(Path(folder) / RUNNING)
            planned = TrainerState.load_from_json(str(Path(folder) / "trainer_state.json")).max_steps
            stopped_early = self.control.should_training_stop and self.state.global_step < planned
            self._over = stopped_early or self.state.global_step >= max_steps
        return found

    def _load_callback_state(self) -> None:
        order = [type(callback) for callback in self.callback_handler.callbacks]
        super()._load_callback_state()
        self.callback_handler.callbacks.sort(key=lambda callback: order.index(type(callback)))

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As the Trainer's; nothing where the run had ended already when its checkpoint was written."""
        self._take_up()
        if self._over:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: float) -> Any:
        """As the Trainer's, with the time of all legs."""
        self._take_up()
        return super()._finalize_training(trial, num_train_samples, start_time - account_of(self).seconds)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """As the Trainer's, which asks after a step and, with the same step, at the end of an epoch.

        The checkpoint of an epoch's last step is written at the end of the epoch, when all is in it.
        """
        step_end = self._asked_at != self.state.global_step
        self._asked_at = self.state.global_step
        self.closing = step_end and (self.control.should_training_stop or float(self.state.epoch or 0).is_integer())
        if self.closing:
            self._save_later, self.control.should_save = self.control.should_save, False
        elif self._save_later:
            self._save_later, self.control.should_save = False, True
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _evaluate(self, *args: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """As the Trainer's; `training.eval_on_start`, which skips the scheduler, is of the start of a run alone."""
        if skip_scheduler and self.state.global_step > 0:
            return {}
        return super()._evaluate(*args, skip_scheduler=skip_scheduler)  # type: ignore[no-any-return]

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As the Trainer's, of steps that are saved alone: another one could not be gone back to at the end.

        Known when it is validated, and written beside the scores: a checkpoint that a signal leaves changes nothing.
        """
        if self._ends_here():
            self.closing, self._save_later, self.control.should_save = True, True, False
        if self.args.save_strategy == SaveStrategy.BEST:
            saved = better = super()._determine_best_metric(metrics, trial)
        else:
            saved = self.can_be_chosen()
            better = saved and super()._determine_best_metric(metrics, trial)
        if not saved:
            self._mark_unsaved()
        return bool(better)

    def can_be_chosen(self) -> bool:
        """Whether the step that is validated now is one that is saved, or is saved if it is the best."""
        due = self.control.should_save or self._save_later or self._ends_here()
        return bool((due or self.args.save_strategy == SaveStrategy.BEST) and self.state.global_step > 0)

    def _ends_here(self) -> bool:
        """Whether training is over and leaves a checkpoint of its last step; where patience ended it, none was due."""
        return bool(self.control.should_training_stop and self.args.save_strategy == SaveStrategy.STEPS)

    def _save_rng_state(self, output_dir: str) -> None:
        """Beside the states of random numbers, the loss of the steps that are not logged yet, of each process."""
        super()._save_rng_state(output_dir)
        losses = self.accelerator.gather(self._tr_loss.reshape(1)).tolist()
        if self.args.should_save:
            self._part(self._write_running, Path(output_dir) / RUNNING, losses)

    def _write_running(self, file: Path, losses: list[float]) -> None:
        values = {"losses": losses, "logged": self._globalstep_last_logged, "total": self._total_loss_scalar}
        file.write_text(json.dumps(values))

    def _take_up(self) -> None:
        left, self._left = self._left, None
        if left is None:
            return
        losses, rank = left["losses"], self.args.process_index
        # By another number of processes, the mean: that is what is logged.
        self._tr_loss += losses[rank] if len(losses) == self.args.world_size else sum(losses) / len(losses)
        self._globalstep_last_logged, self._total_loss_scalar = left["logged"], left["total"]
        self._initial_global_step = 0


def _read(file: Path) -> dict[str, Any] | None:
    try:
        left: dict[str, Any] = json.loads(file.read_text())
    except OSError:  # a checkpoint of a version that did not write it
        return None
    return left
