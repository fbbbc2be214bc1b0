"""The HF Trainer with what it gets silently wrong mended, each in one place.

Mended here: the loss under accumulation and several processes, best checkpoint and resume of ViT's family, torn
checkpoints, NaN losses reported as 0, the epoch of random transforms after a resume, weight decay of norms, ranks that
evaluate with different BatchNorm statistics, `dataloader_drop_last` that leaves evaluation samples out, predictions in
the order of text lengths.
(Frozen parts that `model.train()` wakes up: `strategy/frozen.py`.)
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import ProblemType
from hf_finetune.training import checkpoints
from hf_finetune.training.account import Account
from hf_finetune.training.losses import loss_function
from hf_finetune.training.precision import Precision, launcher_shards_the_model
from hf_finetune.training.progress import Progress
from hf_finetune.training.targets import TargetScale, output_module

if TYPE_CHECKING:
    from hf_finetune.strategy import Applied


class FinetuneTrainer(Trainer):
    """Trains a model that a strategy has been applied to.

    Args:
        applied: the model, who learns, and at what rates.
        args: from `build_arguments`.
        train_dataset: items with `labels`; its `set_epoch` is called before every epoch.
        eval_dataset: the validation split.
        collate: list of items -> batch.
        problem_type: decides the loss.
        compute_metrics: (logits (N, C), labels) -> metrics; runs on every rank with the same, whole validation split.
        target_scale: of regression targets; training sees standard scores, metrics the targets' own unit.
        precision: of the training steps. Evaluation is always in fp32, so that the saved model scores what was logged.
        patience: stop after this many evaluations without a better one.
    """

    def __init__(
        self,
        applied: Applied,
        args: TrainingArguments,
        *,
        train_dataset: Dataset[Any],
        eval_dataset: Dataset[Any],
        collate: Callable[[list[Any]], dict[str, torch.Tensor]],
        problem_type: ProblemType,
        compute_metrics: Callable[[Any], dict[str, float]],
        target_scale: TargetScale | None = None,
        precision: Precision = "no",
        patience: int | None = None,
    ) -> None:
        self.applied = applied
        self.target_scale = target_scale
        self.loss = loss_function(problem_type, args.label_smoothing_factor)
        self.autocast_dtype = torch.bfloat16 if precision == "bf16" and not launcher_shards_the_model() else None
        self._staging: Path | None = None
        self.optimizer: Any = None
        callbacks: list[TrainerCallback] = [
            Account(),
            Progress(args.metric_for_best_model or "loss"),
            EpochOfTransforms(),
        ]
        if patience is not None:
            callbacks.append(EarlyStoppingCallback(early_stopping_patience=patience))
        # The Trainer would smooth the labels itself, after asking the model for a loss that ours does not compute.
        args.label_smoothing_factor = 0.0
        super().__init__(
            model=applied.model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=collate,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        # `compute_loss` gives the mean of a batch; the Trainer then divides by the accumulated batches and DDP averages
        # over the processes. Left to itself it decides from the model's signature, wrongly for BERT, ResNet and others.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False

    # --- a step --------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean loss of a batch, from the logits alone."""
        features = {name: value for name, value in inputs.items() if name != "labels"}
        with self._precision(model):
            outputs = model(**features)
        labels = inputs["labels"]
        loss = self.loss(outputs.logits, labels if self.target_scale is None else self.target_scale.standard(labels))
        return (loss, outputs) if return_outputs else loss

    def _precision(self, model: torch.nn.Module) -> Any:
        if self.autocast_dtype is None or not model.training:
            return nullcontext()
        return torch.autocast(self.args.device.type, dtype=self.autocast_dtype)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that `training.optim` names, with one parameter group for each rate and weight decay."""
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model or self.model)
            options.pop("lr", None)
            self.optimizer = kind(
                self.applied.parameter_groups(self.args.learning_rate, self.args.weight_decay), **options
            )
        return self.optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and stop at a loss that is not a number: every later step would be lost work."""
        for name, words in (("loss", "training"), ("eval_loss", "validation")):
            loss = logs.get(name)
            if loss is not None and not math.isfinite(loss):
                raise UserError(
                    f"The {words} loss is {loss} at step {self.state.global_step}. Lower training.learning_rate "
                    f"({self.args.learning_rate:g}), use precision=no, or look for extreme targets, and give another "
                    f"output_dir. Checkpoints so far are kept in {self.args.output_dir}."
                )
        super().log(logs, start_time)

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> Any:
        """The Trainer's loader; `dataloader_drop_last` is for training: it would leave out evaluation samples."""
        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_eval_sampler(self, eval_dataset: Dataset[Any]) -> torch.utils.data.Sampler[int] | None:
        """In the split's own order: with `group_by_length` the Trainer would give predictions back reordered."""
        strategy, self.args.train_sampling_strategy = self.args.train_sampling_strategy, "random"
        try:
            return super()._get_eval_sampler(eval_dataset)
        finally:
            self.args.train_sampling_strategy = strategy

    # --- evaluation ----------------------------------------------------------------------------------------------

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate with the same statistics on every rank: those of rank 0, which are the ones that get saved."""
        if self.args.world_size > 1 and not launcher_shards_the_model():
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        return super().evaluation_loop(*args, **kwargs)

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Loss, logits (B, C) in fp32 and labels of a batch; hidden states and attentions are not gathered."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        logits = outputs.logits.detach().float()
        return (
            loss.detach(),
            logits if self.target_scale is None else self.target_scale.natural(logits),
            inputs["labels"],
        )

    def give_targets_their_unit(self) -> None:
        """After training: fold the scale of regression targets into the output layer; the model needs no other."""
        if self.target_scale is not None:
            self.target_scale.fold_into(output_module(self.applied))
            self.target_scale = None

    # --- checkpoints ---------------------------------------------------------------------------------------------

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
            checkpoints.rotate(folder, self.args.save_total_limit, self.state.best_global_step)
        self.accelerator.wait_for_everyone()
        self._point_to_best()

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if launcher_shards_the_model():
            super()._save(output_dir, state_dict)
        else:
            checkpoints.save_weights(self.model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if launcher_shards_the_model():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            checkpoints.load_weights(self.model, Path(resume_from_checkpoint))

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


class EpochOfTransforms(TrainerCallback):
    """Tell the data set its epoch, from which random transforms are seeded: also after a resume, also in workers."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the number of passes finished so far."""
        loader = kwargs["train_dataloader"]
        if hasattr(loader.dataset, "set_epoch"):
            loader.dataset.set_epoch(math.floor(state.epoch or 0))
