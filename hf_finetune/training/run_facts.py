"""What an exact resume depends on, beside the recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_finetune.evaluation.products import library_in_use
from hf_finetune.model.attention import attention_in_use
from hf_finetune.publish.versions import versions
from hf_finetune.training.checkpoints import digest_of_frozen

if TYPE_CHECKING:
    from torch import nn

    from hf_finetune.data import TaskData
    from hf_finetune.strategy import Applied
    from hf_finetune.training.precision import NumberFormat
    from hf_finetune.training.trainer import FinetuneTrainer


def facts(task: TaskData, applied: Applied, trainer: FinetuneTrainer, number_format: NumberFormat) -> dict[str, Any]:
    """What an exact resume depends on; written into the run's folder and compared when it goes on."""
    teacher = trainer.distillation
    return {
        "data": task.fingerprint,
        "frozen": digest_of_frozen(applied.model),
        "rows": [len(split) for split in (task.train, task.validation, task.test) if split is not None],
        "processes": trainer.args.world_size,
        "versions": _versions(applied.model),
        "precision": number_format.name,
        "products": library_in_use(),
        "attention": attention_in_use(applied.model),
        **({"channels_last": True} if trainer.channels_last else {}),
        **({"micro_batch": trainer.micro_batch} if trainer.micro_batch else {}),
        **({"teacher": teacher.digest} if teacher is not None else {}),
    }


def _versions(model: nn.Module) -> dict[str, str]:
    """Of the libraries; of timm and peft where the model is made of their modules."""
    makers = {type(module).__module__.partition(".")[0] for module in model.modules()}
    return {name: number for name, number in versions().items() if name not in ("timm", "peft") or name in makers}
