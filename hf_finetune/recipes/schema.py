"""The typed recipe: data + model + strategy + training + evaluation, one validated value.

Nothing here imports torch or transformers. Text is taken as a field's type (`"1e-4"` is a float where a float is asked
for), so that YAML files, the command line and Python code share one rule.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from hf_finetune.recipes.pairs import PairsError, pair_faults
from hf_finetune.recipes.training_arguments import Training
from hf_finetune.recipes.yaml_text import write_yaml

Task = Literal["image-classification", "text-classification"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


def _number_if_it_reads_as_one(value: Any) -> Any:
    """Text such as `0.1` is a share of the rows; any other text is a split's name."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _tag_of_text(value: Any) -> Any:
    """`strategy: lora` is short for `strategy: {kind: lora}`."""
    return {"kind": value} if isinstance(value, str) else value


def _list_of_text(value: Any) -> Any:
    """A single name is a list of one."""
    return [value] if isinstance(value, str) else value


Share = Annotated[float, Field(gt=0.0, lt=1.0)]
SplitOrShare = Annotated[Share | str, BeforeValidator(_number_if_it_reads_as_one)]
Names = Annotated[tuple[str, ...], BeforeValidator(_list_of_text)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A part of a recipe: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


# --- model -----------------------------------------------------------------------------------------------------------


class LinearHead(Section):
    """One linear layer from the checkpoint's pooled features to the labels."""

    kind: Literal["linear"] = "linear"


class MlpHead(Section):
    """Hidden layers before the output layer."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = Field((512,), min_length=1, description="Widths of the hidden layers, in order.")
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    dropout: Probability = Field(0.0, description="Dropout after each hidden layer's activation.")


Head = Annotated[LinearHead | MlpHead, Field(discriminator="kind")]


class Model(Section):
    """The checkpoint and its new head."""

    checkpoint: str = Field(description="Hub id, folder, or package:NAME for one that ships with hf_finetune.")
    revision: str | None = Field(
        None, description="Commit, tag or branch of the checkpoint; a saved run has it pinned."
    )
    head: Annotated[Head, BeforeValidator(_tag_of_text)] = LinearHead()


# --- data ------------------------------------------------------------------------------------------------------------


class Data(Section):
    """Where the samples come from, which columns hold them, and how they are split."""

    dataset: str | tuple[str, ...] | dict[str, str | tuple[str, ...]] = Field(
        description="Hub id, folder of class folders, csv/tsv/json/jsonl/parquet file(s) or glob, {split: file(s)}, "
        "or package:NAME."
    )
    config: str | None = Field(None, description="Configuration name of a Hub data set.")
    revision: str | None = Field(None, description="Commit, tag or branch of a Hub data set.")
    image: str | None = Field(None, description="Image column; found from the features where left out.")
    text: str | None = Field(None, description="Text column; found from the features where left out.")
    text_pair: str | None = Field(None, description="Second text column, for pairs.")
    label: str | None = Field(None, description="Label column; found from the features where left out.")
    problem_type: ProblemType | None = Field(
        None, description="Follows from the label column: floats mean regression, lists multi-label, else classes."
    )
    train_split: str = Field("auto", description="A split's name; auto: the one called train, or the only one.")
    test_split: SplitOrShare | None = Field(
        "auto",
        description="A split's name, or a share of train held out for the test; null for no test. auto: the split "
        "called test, else the one called validation where data.validation is a share, else 0.2 of train.",
    )
    validation: SplitOrShare = Field(
        0.1, description="A split's name, or a share of train (stratified, seeded). Chooses the best checkpoint."
    )
    max_train_samples: PositiveInt | None = Field(
        None, description="Seeded, stratified subset of train, taken before the validation share is held out."
    )
    max_eval_samples: PositiveInt | None = Field(
        None, description="Seeded, stratified subset of the test split, and of a validation split named by you."
    )
    on_error: Literal["raise", "skip"] = Field(
        "raise", description="Broken rows: stop and name them, or leave them out and list them in skipped.jsonl."
    )
    augment: Literal["auto", "none", "basic"] = Field(
        "auto",
        description="Random resized crop and flip of images; auto: on where the backbone learns from natural images.",
    )
    max_length: PositiveInt | None = Field(None, description="Tokens kept of a text; the model's limit if left out.")


# --- strategy --------------------------------------------------------------------------------------------------------


class Full(Section):
    """Everything learns."""

    kind: Literal["full"] = "full"
    head_lr_multiplier: Annotated[float, Field(gt=0)] = Field(
        10.0, description="A head from scratch takes about ten times the rate of pretrained layers."
    )


class HeadOnly(Section):
    """The head alone learns; the rest is frozen, BatchNorm statistics and dropout too."""

    kind: Literal["head"] = "head"


class Freeze(Section):
    """The head and the last `train_blocks` blocks learn."""

    kind: Literal["freeze"] = "freeze"
    train_blocks: PositiveInt = Field(1, description="Number of blocks that learn, counted from the head.")
    head_lr_multiplier: Annotated[float, Field(gt=0)] = 10.0


class Lora(Section):
    """Low-rank adapters on the frozen backbone, and the head (Hu et al. 2021, arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    r: PositiveInt = Field(8, description="Rank.")
    alpha: Annotated[float, Field(gt=0)] = Field(16.0, description="Updates are scaled by alpha / r.")
    dropout: Probability = 0.0
    targets: Names | None = Field(
        None, description="Module name endings to adapt; the family's own choice where left out."
    )
    merge: bool = Field(False, description="Save the adapters merged into the weights, or beside them.")


class Scratch(Section):
    """Everything learns from random weights: the baseline that transfer has to beat."""

    kind: Literal["scratch"] = "scratch"


Strategy = Annotated[Full | HeadOnly | Freeze | Lora | Scratch, Field(discriminator="kind")]


# --- evaluation ------------------------------------------------------------------------------------------------------


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
    bootstrap: Annotated[int, Field(ge=0)] = Field(1000, description="Resamples behind each 95% interval; 0 for none.")


class Expected(Section):
    """What we measured with this recipe; null until measured."""

    metric: str
    split: str
    value: float
    interval: tuple[float, float] | None = None
    seeds: int | None = None
    hardware: str | None = None
    commit: str | None = None


_HEADER = """\
#   accelerate launch hf_finetune/run.py recipe=FILE.yaml
# yaml-language-server: $schema=./schema.json
"""


class Recipe(Section):
    """Data + model + strategy + training + evaluation: one typed value; a YAML file is its written form."""

    task: Task
    model: Model
    data: Data
    strategy: Annotated[Strategy, BeforeValidator(_tag_of_text)] = Full()
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Evaluation()
    expected: Expected | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    output_dir: str = "runs/finetune"

    @model_validator(mode="after")
    def _goes_together(self) -> Recipe:
        faults = pair_faults(self)
        if faults:
            raise PairsError(faults)
        return self

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
