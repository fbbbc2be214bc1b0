"""The typed recipe: data + model + strategy + loss + training + evaluation, one validated value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from hf_finetune.recipes.cache_section import Cache
from hf_finetune.recipes.data_section import Clean, Data, ImageAugment, TextAugment
from hf_finetune.recipes.hub_section import Hub
from hf_finetune.recipes.loss_section import Average, Distill, Loss
from hf_finetune.recipes.model_section import CosineHead, Head, LinearHead, MlpHead, Model
from hf_finetune.recipes.pairs import PairsError, pair_faults
from hf_finetune.recipes.section import Names, ProblemType, Section, Share, Task, tag_of_text
from hf_finetune.recipes.strategy_section import (
    Auto,
    BitFit,
    Features,
    Freeze,
    Full,
    Gradual,
    HeadOnly,
    Lora,
    LpFt,
    Norms,
    Peft,
    Scratch,
    Stage,
    Stages,
    Strategy,
)
from hf_finetune.recipes.tasks_section import TaskSettings
from hf_finetune.recipes.training_arguments import Training
from hf_finetune.recipes.yaml_text import write_yaml

__all__ = [
    "Auto",
    "Average",
    "BitFit",
    "Cache",
    "Clean",
    "CosineHead",
    "Data",
    "Distill",
    "Evaluation",
    "Expected",
    "Features",
    "Freeze",
    "Full",
    "Gradual",
    "Head",
    "HeadOnly",
    "Hub",
    "ImageAugment",
    "LinearHead",
    "Lora",
    "Loss",
    "LpFt",
    "MlpHead",
    "Model",
    "Norms",
    "Peft",
    "ProblemType",
    "Recipe",
    "Scratch",
    "Section",
    "Stage",
    "Stages",
    "Strategy",
    "Task",
    "TaskSettings",
    "TextAugment",
    "Training",
]


VIEWS = {"none": 1, "flip": 2, "five_crop": 5, "ten_crop": 10}


class Evaluation(Section):
    """What is measured, and what chooses the best checkpoint."""

    metrics: Names | None = Field(
        None,
        description="Names of hf_finetune's metrics, or evaluate:ID for the Hub's; the task's own if left out.",
    )
    best: str | None = Field(
        None, description="Validation metric that chooses the checkpoint; the first metric if left out."
    )
    patience: PositiveInt | None = Field(None, description="Stop after this many evaluations without a better one.")
    tta: Literal["none", "flip", "five_crop", "ten_crop"] = Field(
        "none",
        description="Test-time augmentation of images: the final scores average the logits over these views "
        "(Krizhevsky et al. 2012).",
    )
    test: bool = Field(
        True,
        description="false: the test split is set apart as ever, and neither read nor scored, as in the trials of "
        "hf-finetune search.",
    )
    bootstrap: Annotated[int, Field(ge=0)] = Field(1000, description="Resamples behind each 95% interval; 0 for none.")
    cross_validation: Annotated[int, Field(ge=2, le=100)] | None = Field(
        None,
        description="So many runs beside this one, in folds/K: each holds out one fold of train, and the predictions "
        "for the held-out rows are scored together.",
    )
    calibration: Literal["none", "temperature"] = Field(
        "none",
        description="temperature: logits are divided by one number, fitted on validation (Guo et al. 2017).",
    )
    thresholds: Literal["none", "per_class"] = Field(
        "none",
        description="per_class: each of several labels is given above a probability of its own, with the best F1 on "
        "validation.",
    )
    conformal: Share | None = Field(
        None,
        description="Sets of classes that hold the right one with this chance, such as 0.9, calibrated on validation "
        "(split conformal prediction; Sadinle et al. 2019).",
    )


class Expected(Section):
    """What we measured with this recipe: mean over seeds, 95% interval, seconds of one run; null until measured."""

    metric: str
    split: str
    value: float
    interval: tuple[float, float] | None = None
    seeds: int | None = None
    seconds: float | None = None
    hardware: str | None = None
    commit: str | None = None

    def in_words(self) -> str:
        """One line, beside which a run of the recipe can be held."""
        between = f" (95% between {self.interval[0]:.4f} and {self.interval[1]:.4f})" if self.interval else ""
        seeds = f", mean of {self.seeds} seeds" if self.seeds else ""
        return f"The recipe's own figure: {self.split} {self.metric} {self.value:.4f}{between}{seeds}."


_HEADER = """\
#   accelerate launch hf_finetune/run.py recipe=FILE.yaml
# yaml-language-server: $schema=./schema.json
"""


class Recipe(Section):
    """Data + model + strategy + training + evaluation: one typed value; a YAML file is its written form."""

    task: Task
    model: Model
    data: Data
    tasks: dict[str, TaskSettings] = Field(
        default_factory=dict, description="Several label columns by the names of their tasks, in place of data.label."
    )
    strategy: Annotated[Strategy, BeforeValidator(tag_of_text)] = Full()
    loss: Loss = Loss()
    training: Training = Field(default_factory=Training)
    average: Average = Average()
    distill: Distill | None = None
    cache: Cache = Cache()
    evaluation: Evaluation = Evaluation()
    hub: Hub = Hub()
    expected: Expected | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: PositiveInt = Field(
        1,
        description="Train so many times, with seed, seed + 1, ..., on the same rows; the scores are then told over "
        "seeds and test samples. The run in output_dir is that of seed; the others lie in output_dir/seeds.",
    )
    output_dir: str = "runs/finetune"

    @model_validator(mode="after")
    def _goes_together(self) -> Recipe:
        faults = pair_faults(self)
        if faults:
            raise PairsError(faults)
        return self

    @property
    def data_seed(self) -> int:
        """The seed by which rows are chosen and held out."""
        return self.seed if self.data.seed is None else self.data.seed

    def with_overrides(self, *pairs: str) -> Recipe:
        """A new recipe with `dotted.path=value` pairs laid over this one, by the rules of the command line.

        Raises:
            RecipeError: everything wrong with the pairs at once.
        """
        from hf_finetune.recipes.load import changed

        return changed(self, pairs)

    def written(self) -> dict[str, Any]:
        """The recipe as plain mappings, lists and scalars in the schema's order; unset `training` keys are left out."""
        values = self.model_dump(mode="json")
        values["training"] = self.training.values()
        return values

    def to_yaml(self) -> str:
        """The recipe as YAML; loading it gives an equal recipe.

        The header names the command and the schema (`hf-finetune schema > schema.json` writes it, for editors).
        """
        # One line, whatever it holds: what follows a line's end would be read as a key.
        title = f"{self.model.checkpoint} on {self.data.dataset}: {self.task}"
        title = "".join(letter if letter.isprintable() else " " for letter in title)
        return f"# {title}, every value resolved.\n{_HEADER}{write_yaml(self.written())}"
