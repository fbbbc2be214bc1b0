"""A Trainer over a tiny model and fixed samples, the same every time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from model_samples import batch, save_checkpoint
from strategy_samples import load, recipe_for
from torch.utils.data import Dataset
from transformers import TrainingArguments

from hf_finetune.strategy import apply_strategy
from hf_finetune.training.arguments import build_arguments
from hf_finetune.training.optimizers import plain_optimizer
from hf_finetune.training.trainer import FinetuneTrainer

NAMES = ["a", "b", "c"]


class Fixed(Dataset):
    """Samples of `model_samples.batch`, one by one."""

    def __init__(self, family: str, size: int, seed: int = 0) -> None:
        self.columns = batch(family, size, seed)

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


def collate(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def trainer(
    folder: Path,
    family: str,
    strategy: Any = "full",
    *,
    size: int = 32,
    still: bool = False,
    patience: int | None = None,
    precision: str = "no",
    eval_dataset: Dataset | None = None,
    extra: dict[str, Any] | None = None,
    **training: Any,
) -> FinetuneTrainer:
    """A Trainer in `folder`; `still` turns dropout off and holds BatchNorm, so that batches can be compared.

    `extra` goes to FinetuneTrainer as it is; its "callbacks" is a function of the applied strategy.
    """
    checkpoint = folder / "pretrained"
    if not checkpoint.exists():
        save_checkpoint(family, checkpoint)
    recipe = recipe_for(family, checkpoint, strategy)
    loaded = load(recipe, NAMES)
    if still:
        for module in loaded.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    settings = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "report_to": "none", **training}
    recipe = recipe.model_copy(update={"training": type(recipe.training).model_validate(settings)})
    rate = float(settings.get("learning_rate", 1e-2))
    arguments: TrainingArguments = build_arguments(recipe, rate, folder / "checkpoints", precision)  # type: ignore[arg-type]
    arguments.metric_for_best_model, arguments.greater_is_better = "accuracy", True
    torch.manual_seed(0)
    applied = apply_strategy(loaded, recipe)
    if still:
        norms = tuple(name for name, module in applied.model.named_modules() if hasattr(module, "running_mean"))
        applied.stages = tuple(replace(stage, still=norms) for stage in applied.stages)
        applied.enter(0)
    return FinetuneTrainer(
        applied,
        arguments,
        train_dataset=Fixed(family, size),
        eval_dataset=eval_dataset or Fixed(family, 10, seed=5),
        collate=collate,
        problem_type="single_label_classification",
        compute_metrics=accuracy,
        precision=precision,  # type: ignore[arg-type]
        patience=patience,
        plain_optimizer=plain_optimizer(recipe),
        **{name: value(applied) if name == "callbacks" else value for name, value in (extra or {}).items()},
    )


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
