"""Learning from another model: its answers (Hinton et al. 2015, arXiv:1503.02531), its features (FitNets,
arXiv:1412.6550), or both.

    loss = alpha x teaching + (1 - alpha) x the recipe's own loss

The teaching on logits is T^2 x KL(teacher / T || student / T) for classes, the binary cross-entropy to the teacher's
sigmoid for each label of several, and the squared error for numbers (in standard deviations of the targets, as the
own loss). On features it is 1 - cosine between the teacher's and a learned linear projection of the student's, both
being what the model's output layer receives.

Where training samples are not changed at random, the teacher answers every row once, before training. Else it answers
each batch as the student sees it, the mixed and erased pixels too: answers to the unchanged image would be wrong
("a good teacher is patient and consistent", Beyer et al. 2022, arXiv:2106.05237).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.nn import functional
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import Distill, ProblemType
from hf_finetune.training.targets import TargetScale
from hf_finetune.training.teacher import Answers, Teacher, inputs_of, pooled

if TYPE_CHECKING:
    from hf_finetune.training.same_pixels import SamePixels

FILE = "projection.safetensors"
LOGITS, FEATURES = "teacher_logits", "teacher_features"  # a batch's keys beside those of the model
NOT_FOR_THE_MODEL = ("labels", LOGITS, FEATURES)


@dataclass(eq=False)
class Distillation(TrainerCallback):
    """What a student learns from its teacher.

    Args:
        settings: of the recipe.
        problem_type: of the labels.
        digest: checksum of the teacher's weights.
        revision: the teacher's commit; None for a folder.
        score: of the teacher on the validation rows, by metric.
        scale: of regression targets.
        output: the student's output layer, where its features are taught.
        projection: from the student's features (F_s) to the teacher's (F_t); learned along, no part of the model.
        teacher: where it answers batch by batch; None where the batches hold its answers.
        view: the student's images as the teacher takes them.
    """

    settings: Distill
    problem_type: ProblemType
    digest: str = ""
    revision: str | None = None
    score: dict[str, float] = field(default_factory=dict)
    scale: TargetScale | None = None
    output: nn.Module | None = None
    projection: nn.Linear | None = None
    teacher: Teacher | None = None
    view: SamePixels | None = None

    # --- a step --------------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[list[torch.Tensor]]:
        """What the student's output layer receives in the block."""
        with inputs_of(self.output) as seen:
            yield seen

    def answers(self, batch: Mapping[str, torch.Tensor]) -> Answers:
        """The teacher's answers to a training batch: those it holds, or those that the teacher gives now."""
        if self.teacher is None or self.view is None:
            return Answers(batch[LOGITS], batch.get(FEATURES))
        pixels = batch["pixel_values"]
        self.teacher.model.to(pixels.device)  # type: ignore[arg-type]
        return self.teacher({"pixel_values": self.view(pixels)})

    def loss(
        self,
        own: torch.Tensor,
        logits: torch.Tensor,
        seen: list[torch.Tensor],
        inputs: Mapping[str, torch.Tensor],
        answers: Answers,
    ) -> torch.Tensor:
        """The loss with the teaching in it.

        Args:
            own: the recipe's own loss of the batch.
            logits: the student's (N, C); (2 N, C) with R-Drop, whose second half is the first again.
            seen: what its output layer received.
            inputs: what the student read.
            answers: the teacher's.
        """
        alpha = self.settings.alpha
        if alpha == 0:
            return own
        again = len(logits) // len(answers.logits)
        terms = []
        if self.settings.on != "features":
            terms.append(self._on_logits(logits.float(), answers.logits.float().repeat(again, 1)))
        if self.projection is not None and answers.features is not None:
            student = self.projection(pooled(seen, inputs))
            terms.append((1 - functional.cosine_similarity(student, answers.features.float().repeat(again, 1))).mean())
        teaching = torch.stack(terms).sum()
        return teaching if alpha == 1 else alpha * teaching + (1 - alpha) * own

    def _on_logits(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        if self.problem_type == "regression":
            return functional.mse_loss(student, teacher if self.scale is None else self.scale.standard(teacher))
        heat = self.settings.temperature
        student, teacher = student / heat, teacher / heat
        # The gradients shrink with 1 / T^2; the factor keeps their share.
        if self.problem_type == "multi_label_classification":
            return heat**2 * functional.binary_cross_entropy_with_logits(student, teacher.sigmoid())
        log_student, log_teacher = student.log_softmax(-1), teacher.log_softmax(-1)
        return heat**2 * functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)

    # --- the projection ------------------------------------------------------------------------------------------

    def parameter_groups(self, groups: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
        """The optimizer's groups of the model, and one of the projection, which learns as fast as the fastest."""
        if self.projection is None:
            return groups
        self.projection.to(device)
        own = {
            "name": "projection to the teacher's features",
            "params": list(self.projection.parameters()),
            "lr": max(group["lr"] for group in groups),
            "rates": tuple(max(rates) for rates in zip(*(group["rates"] for group in groups), strict=True)),
            "weight_decay": 0.0,
        }
        return [*groups, own]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The mean gradient over the processes: DDP knows the model's own parameters alone."""
        if self.projection is None or args.world_size == 1:
            return
        for parameter in self.projection.parameters():
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= args.world_size

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the gradient: the Trainer does so for the model's own parameters alone."""
        if self.projection is not None:
            self.projection.zero_grad()

    def save(self, folder: Path) -> None:
        """Write the projection into a checkpoint, before it is sealed."""
        from safetensors.torch import save_file

        if self.projection is not None:
            tensors = {name: tensor.detach().contiguous() for name, tensor in self.projection.state_dict().items()}
            save_file(tensors, str(folder / FILE))

    def load(self, folder: Path) -> None:
        """Read the projection back.

        Raises:
            UserError: the checkpoint has none.
        """
        from safetensors.torch import load_file

        if self.projection is None:
            return
        if not (folder / FILE).is_file():
            raise UserError(f"{folder} was written without distill.on={self.settings.on}: give another output_dir.")
        self.projection.load_state_dict(load_file(str(folder / FILE)))
