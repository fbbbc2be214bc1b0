"""The three problems of techniques.py, and the techniques tried on each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TEACHER = "TEACHER"  # in an override: the folder of the same seed's run that teaches
STUDENT = "STUDENT"  # in an override: a folder with an untrained small ResNet


@dataclass(frozen=True)
class Technique:
    """One row of the table.

    Args:
        name: as the table shows it.
        overrides: what is laid over the problem's recipe.
        teacher: whether the run's folder is kept for the students of the same seed.
    """

    name: str
    overrides: tuple[str, ...]
    teacher: bool = False


@dataclass(frozen=True)
class Problem:
    """Data and checkpoint, as a recipe's mapping, the techniques tried on them, and the same at toy size."""

    title: str
    recipe: dict[str, Any]
    techniques: tuple[Technique, ...]
    toy: dict[str, Any] = field(default_factory=dict)


def _shared(gradual: int, freeze: int, head_epochs: float) -> tuple[Technique, ...]:
    """What suits any pretrained Transformer.

    Args:
        gradual: blocks that join in each stage.
        freeze: blocks that learn.
        head_epochs: epochs of lp_ft's first stage.
    """
    return (
        Technique("full", ("strategy=full",), teacher=True),
        Technique("zones", ("strategy=full", "strategy.zones=[0, 0.1, 1]")),
        Technique("layer_decay", ("strategy=full", "strategy.layer_decay=0.75")),
        Technique("lp_ft", ("strategy=lp_ft", f"strategy.head_epochs={head_epochs}")),
        Technique("gradual", ("strategy=gradual", f"strategy.blocks_per_stage={gradual}")),
        Technique("freeze", ("strategy=freeze", f"strategy.train_blocks={freeze}")),
        Technique("bitfit", ("strategy=bitfit",)),
        Technique("LoRA", ("strategy=lora",)),
        Technique("DoRA", ("strategy=lora", "strategy.variant=dora")),
        Technique("features", ("strategy=features",)),
        Technique("scratch", ("strategy=scratch",)),
        Technique("mixup", ("strategy=full", "data.mixup=0.2")),
        Technique("EMA", ("strategy=full", "average.ema=0.99")),
    )


_SMALL_RESNET = (
    f"model.checkpoint={STUDENT}",
    "model.image_size=null",
    "strategy=scratch",
    "training.num_train_epochs=10",
)
_HALF_MINILM = ("strategy=full", "model.drop_blocks=[2, 4, 6]")
_NARROW_RESNET = (f"model.checkpoint={STUDENT}", "strategy=scratch")
_TAUGHT = (f"distill.teacher={TEACHER}",)
_TRAINING = {"per_device_train_batch_size": 32, "per_device_eval_batch_size": 64, "dataloader_num_workers": 0}

PROBLEMS = {
    "cifar10": Problem(
        title="CIFAR-10: 5,000 images (500 of them validate), 2,000 for the test; ViT-Tiny at 80 px, 3 epochs, no "
        "augmentation. Students: a ResNet of 1.2 M parameters from random weights at 32 px, 10 epochs.",
        recipe={
            "task": "image-classification",
            "model": {"checkpoint": "WinKawaks/vit-tiny-patch16-224", "image_size": 80},
            "data": {
                "dataset": "uoft-cs/cifar10",
                "max_train_samples": 5000,
                "max_eval_samples": 2000,
                "validation": 0.1,
                "augment": "none",
            },
            "training": {"num_train_epochs": 3, **_TRAINING},
        },
        techniques=(
            *_shared(gradual=4, freeze=2, head_epochs=1),
            Technique("student", _SMALL_RESNET),
            Technique("distillation", (*_SMALL_RESNET, *_TAUGHT)),
        ),
        toy={
            "model": {"checkpoint": "package:digits-vit", "image_size": 28},
            "data": {"dataset": "package:digits", "max_train_samples": 80, "max_eval_samples": 40},
            "training": {"num_train_epochs": 2},
        },
    ),
    "sst2": Problem(
        title="SST-2: 4,000 sentences (200 of them validate), its 872 validation sentences for the test; MiniLM, at "
        "most 64 tokens, 2 epochs, batches grouped by length. Students: MiniLM with three of its six blocks.",
        recipe={
            "task": "text-classification",
            "model": {"checkpoint": "sentence-transformers/all-MiniLM-L6-v2"},
            "data": {
                "dataset": "stanfordnlp/sst2",
                "text": "sentence",
                "label": "label",
                "max_train_samples": 4000,
                "validation": 0.05,
                "test_split": "validation",
                "max_length": 64,
            },
            "training": {"num_train_epochs": 2, "train_sampling_strategy": "group_by_length", **_TRAINING},
        },
        techniques=(
            *(t for t in _shared(gradual=2, freeze=2, head_epochs=0.5) if t.name != "mixup"),
            Technique("student", _HALF_MINILM),
            Technique("distillation", (*_HALF_MINILM, *_TAUGHT)),
        ),
        toy={"data": {"max_train_samples": 80, "max_eval_samples": 40}},
    ),
    "fashion_mnist": Problem(
        title="Fashion-MNIST: 6,000 images (600 of them validate), 2,000 for the test, 6 epochs, no augmentation; the "
        "package's ResNet of 0.2 M parameters from random weights (scratch, and what stands on it) or as pretrained on "
        "handwritten digits (full, features). Students: a ResNet of 33,000 parameters from random weights.",
        recipe={
            "task": "image-classification",
            "model": {"checkpoint": "package:digits-resnet"},
            "data": {
                "dataset": "zalando-datasets/fashion_mnist",
                "max_train_samples": 6000,
                "max_eval_samples": 2000,
                "validation": 0.1,
                "augment": "none",
            },
            "training": {"num_train_epochs": 6, **_TRAINING},
        },
        techniques=(
            Technique("scratch", ("strategy=scratch",), teacher=True),
            Technique("full", ("strategy=full",)),
            Technique("features", ("strategy=features",)),
            Technique("mixup", ("strategy=scratch", "data.mixup=0.2")),
            Technique("EMA", ("strategy=scratch", "average.ema=0.99")),
            Technique("student", _NARROW_RESNET),
            Technique("distillation", (*_NARROW_RESNET, *_TAUGHT)),
        ),
        toy={
            "data": {"dataset": "package:digits", "max_train_samples": 80, "max_eval_samples": 40},
            "training": {"num_train_epochs": 1},
        },
    ),
}
# Students of a smaller kind than their teacher: widths of the four stages.
WIDTHS = {"cifar10": (32, 64, 128, 256), "fashion_mnist": (8, 16, 24, 32)}
