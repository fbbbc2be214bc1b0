"""The HF Trainer with what it gets silently wrong mended, each in one place.

Mended here: the loss under accumulation and several processes, best checkpoint and resume of ViT's family, torn
checkpoints, NaN losses reported as 0, the epoch of random transforms after a resume, weight decay of norms, ranks that
evaluate with different BatchNorm statistics, `dataloader_drop_last` that leaves evaluation samples out, predictions in
the order of text lengths.
(Frozen parts that `model.train()` wakes up: `strategy/frozen.py`.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from hf_finetune.data import normalized
from hf_finetune.evaluation.read import read
from hf_finetune.evaluation.views import Views
from hf_finetune.recipes.schema import ProblemType
from hf_finetune.training.account import Account
from hf_finetune.training.answered_once import AnsweredOnce
from hf_finetune.training.distill import NOT_FOR_THE_MODEL, Distillation
from hf_finetune.training.ema import Ema
from hf_finetune.training.epochs import EpochNumber
from hf_finetune.training.finite import FiniteSteps
from hf_finetune.training.l2_sp import StartingPoint
from hf_finetune.training.lean_steps import LeanTrainer
from hf_finetune.training.mixing import Mixing
from hf_finetune.training.objective import Objective
from hf_finetune.training.optimizers import PlainOptimizer
from hf_finetune.training.pace import PacedTrainer
from hf_finetune.training.precision import Precision, launcher_shards_the_model
from hf_finetune.training.progress import Progress
from hf_finetune.training.sharding import shard_embeddings_once
from hf_finetune.training.stages import Patience, Stages
from hf_finetune.training.step_format import FormattedSteps
from hf_finetune.training.stoppable import StoppableTrainer
from hf_finetune.training.targets import TargetScale, output_module

if TYPE_CHECKING:
    from hf_finetune.strategy import Applied


class FinetuneTrainer(AnsweredOnce, FiniteSteps, LeanTrainer, PacedTrainer, FormattedSteps, StoppableTrainer):
    """Trains a model that a strategy has been applied to.

    Args:
        applied: the model, who learns, and at what rates.
        args: from `build_arguments`.
        train_dataset: items with `labels`; its `set_epoch` is called before every epoch.
        eval_dataset: the validation split.
        collate: list of items -> batch.
        problem_type: decides the loss where no objective is given.
        compute_metrics: (logits (N, C), labels) -> metrics; runs on every rank with the same, whole validation split.
        target_scale: of regression targets; training sees standard scores, metrics the targets' own unit.
        precision: of the training steps. Evaluation is always in fp32, so that the saved model scores what was logged.
        patience: stop after this many evaluations without a better one.
        mixing: mixup and CutMix of training batches.
        objective: what is minimised; the problem type's plain loss if None.
        plain_optimizer: in place of the one that `args.optim` names.
        sampler: of the training rows, in place of the one that `args.train_sampling_strategy` names.
        callbacks: what acts after each step, in this order: `StartingPoint`, `CoralHead`, `Ema`, `TimeBudget`,
            `Distillation`.
        keep_best: so many of the best checkpoints are never rotated away.

    After training, `kept` says in words which average the weights are, or is None where they are the best checkpoint's.
    """

    lr_scheduler: Any

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
        mixing: Mixing | None = None,
        objective: Objective | None = None,
        plain_optimizer: PlainOptimizer | None = None,
        sampler: Sampler[int] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        keep_best: int = 1,
    ) -> None:
        self.applied = applied
        self.target_scale = target_scale
        self.objective = objective or Objective.plain(problem_type, args.label_smoothing_factor)
        self.plain_optimizer, self.sampler, self.keep_best = plain_optimizer, sampler, keep_best
        found: dict[type, Any] = {type(callback): callback for callback in callbacks}
        self.ema, self.start, self.distillation = (found.get(kind) for kind in (Ema, StartingPoint, Distillation))
        self.balance = self.objective.balance
        balancing = [self.balance] if self.balance is not None else []
        self.kept: str | None = None
        self.autocast_dtype = torch.bfloat16 if precision == "bf16" and not launcher_shards_the_model() else None
        self.micro_batch: int | None = None
        self.mixing = mixing
        self.tta: Views = "none"
        self.optimizer: Any = None
        self.stages = Stages(applied) if len(applied.stages) > 1 else None
        shown = args.metric_for_best_model or "loss"
        own: list[TrainerCallback] = [Account(), Progress(shown, self.can_be_chosen), EpochNumber(sampler)]
        if patience is not None:  # first: a step with which it ends the run is saved, and may be the best
            own.insert(0, Patience(patience, after=self.stages.share_before_last if self.stages else 0.0))
        # The Trainer would smooth the labels itself, after asking the model for a loss that ours does not compute.
        args.label_smoothing_factor = 0.0
        if launcher_shards_the_model():
            shard_embeddings_once(applied.model)
        super().__init__(
            model=applied.model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=collate,
            compute_metrics=compute_metrics,
            callbacks=[*own, *([self.stages] if self.stages else ()), *callbacks, *balancing],
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
        """The mean loss of a batch, from the logits alone; labels are as `Objective` takes them."""
        features = {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
        labels = inputs["labels"]
        if self.target_scale is not None:
            labels = self.target_scale.standard(labels)
        if model.training:
            features, labels = self.objective.inputs(features, labels)
        teaching = self.distillation if model.training else None
        watching: Any = teaching.watching() if teaching else nullcontext()
        with self._precision(model), watching as seen:
            outputs = read(model, features, self.tta, self._windows_at_once)
            answers = teaching.answers(inputs) if teaching else None
        loss = self.objective.loss(outputs.logits, labels, training=model.training)
        if teaching is not None and answers is not None:
            loss = teaching.loss(loss, outputs.logits, seen, features, answers)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass, on mixed images where the recipe says so."""
        if self.mixing is not None:
            inputs = self.mixing(self._prepare_inputs(inputs), self.state.global_step)
        return super().training_step(model, inputs, *args, **kwargs)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A batch on the device, images normalized; of rows, with the features that are kept of them."""
        if self.prefix is not None:
            inputs = self.prefix.prepare(inputs)
        inputs = normalized(super()._prepare_inputs(inputs))
        # Pixels are numbers with a fraction only now, and DeepSpeed's weights want them in their own format.
        return super()._prepare_inputs(inputs) if self.is_deepspeed_enabled else inputs

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nothing is counted: the Trainer would walk over all parameters at every step, and count padding."""
        return 0

    @property
    def _windows_at_once(self) -> int | None:
        """Windows of texts in memory together while evaluating; sharded models need as many calls on every process."""
        return None if launcher_shards_the_model() else self.args.eval_batch_size

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that `training.optim` names, with one parameter group for each rate and weight decay."""
        if self.optimizer is None:
            groups = self.applied.parameter_groups(self.args.learning_rate, self.args.weight_decay)
            if self.start is not None:
                groups = self.start.without_weight_decay(groups)
            for part in (self.distillation, self.balance):
                if part is not None:
                    groups = part.parameter_groups(groups, self.args.device)
            if self.plain_optimizer is not None:
                self.optimizer = self.plain_optimizer.build(groups, self.applied)
            else:
                kind, options = self.get_optimizer_cls_and_kwargs(self.args, model or self.model)
                options.pop("lr", None)
                self.optimizer = kind(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The schedule that `training.lr_scheduler_type` names; over each stage anew where there are several."""
        optimizer = self.optimizer if optimizer is None else optimizer
        # Where transformers' `cosine_with_min_lr` and `polynomial` look for the rate; groups have their own, and
        # DeepSpeed's optimizer no such place.
        getattr(optimizer, "defaults", {})["lr"] = self.args.learning_rate
        if self.stages is not None and self.lr_scheduler is None:
            self.lr_scheduler = self.stages.scheduler(self.args, optimizer, num_training_steps)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.sampler if self.sampler is not None else super()._get_train_sampler(train_dataset)

    # --- evaluation ----------------------------------------------------------------------------------------------

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
        if self.target_scale is not None:
            logits = self.target_scale.natural(logits)
        return loss.detach(), logits, inputs["labels"]

    def release_prefix(self) -> None:
        """At the end of a run: the model takes samples again, as any other."""
        if self.prefix is not None:
            self.prefix.release()

    def give_targets_their_unit(self) -> None:
        """After training: fold the scale of regression targets into the output layer; the model needs no other."""
        if self.target_scale is not None:
            self.target_scale.fold_into(output_module(self.applied))
            self.target_scale = None
