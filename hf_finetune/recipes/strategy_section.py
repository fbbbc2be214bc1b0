"""The `strategy:` section: which parts of the anatomy learn, at which rates, in which stages."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, PositiveInt, ValidationInfo, field_validator

from hf_finetune.recipes.peft_options import converted
from hf_finetune.recipes.section import (
    Names,
    NotNegative,
    Positive,
    Probability,
    Section,
    Share,
    list_of_one,
    tag_of_text,
)

HeadMultiplier = Annotated[
    float, Field(gt=0, description="A head from scratch takes about ten times the rate of pretrained layers.")
]
PeftMethod = Literal["ia3", "vera", "loha", "lokr", "oft", "boft", "prompt_tuning", "prefix_tuning"]


class Full(Section):
    """Everything learns."""

    kind: Literal["full"] = "full"
    head_lr_multiplier: HeadMultiplier = 10.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Each block takes this times the rate of the block above it (arXiv:2003.10555, arXiv:2106.08254).",
    )
    zones: tuple[NotNegative, NotNegative, NotNegative] | None = Field(
        None, description="Rate multipliers of the base, middle and top thirds of the blocks; 0 freezes."
    )


class Sweep(Section):
    """Each rate with each weight decay, in one pass; the best on validation is trained."""

    learning_rate: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = Field(
        None, description="Rates to try; the run's own if left out."
    )
    weight_decay: Annotated[tuple[NotNegative, ...], Field(min_length=1)] | None = Field(
        None, description="Weight decays to try; the run's own if left out."
    )


class HeadOnly(Section):
    """The head alone learns; the rest is frozen, BatchNorm statistics and dropout too."""

    kind: Literal["head"] = "head"
    solver: Literal["adamw", "lbfgs"] = Field(
        "adamw", description="adamw: the Trainer's steps; lbfgs: all rows at once, to the minimum, on kept features."
    )
    sweep: Sweep | None = Field(None, description="Rates and weight decays that are tried at once on kept features.")


class Freeze(Section):
    """The head and the last `train_blocks` blocks learn."""

    kind: Literal["freeze"] = "freeze"
    train_blocks: PositiveInt = Field(1, description="Number of blocks that learn, counted from the head.")
    head_lr_multiplier: HeadMultiplier = 10.0


class Lora(Section):
    """Low-rank adapters on the frozen backbone, and the head (Hu et al. 2021, arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    variant: Literal["lora", "dora", "rslora", "pissa"] = Field(
        "lora", description="DoRA (arXiv:2402.09353), rsLoRA (arXiv:2312.03732), PiSSA (arXiv:2404.02948)."
    )
    r: PositiveInt = Field(8, description="Rank.")
    alpha: Annotated[float, Field(gt=0)] = Field(16.0, description="Updates are scaled by alpha / r.")
    dropout: Probability = 0.0
    b_lr_multiplier: Positive = Field(
        1.0, description="LoRA+ (arXiv:2402.12354): rate of the second matrices over that of the first; 16 is usual."
    )
    targets: Names | None = Field(
        None, description="Module name endings to adapt; the family's own choice where left out."
    )
    merge: bool = Field(False, description="Save the adapters merged into the weights, or beside them.")


class Peft(Section):
    """Another method of peft on the frozen backbone, and the head."""

    kind: Literal["peft"] = "peft"
    method: PeftMethod
    targets: Names | None = Field(
        None, description="Module name endings to adapt; the family's own choice where left out."
    )
    options: dict[str, Any] = Field({}, description="Further fields of the method's peft configuration, by its names.")
    merge: bool = Field(False, description="Save the adapters merged into the weights, or beside them.")

    @field_validator("options")
    @classmethod
    def _typed(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return converted(info.data.get("method", ""), options)


class BitFit(Section):
    """Biases and the head learn (Ben Zaken et al. 2021, arXiv:2106.10199)."""

    kind: Literal["bitfit"] = "bitfit"
    norms: bool = Field(True, description="The norms' scales learn too.")
    head_lr_multiplier: HeadMultiplier = 1.0


class Norms(Section):
    """The norms and the head learn (Frankle et al. 2020, arXiv:2003.00152; Basu et al. 2023, arXiv:2304.03937)."""

    kind: Literal["norms"] = "norms"
    head_lr_multiplier: HeadMultiplier = 1.0


class Scratch(Section):
    """Everything learns from random weights: the baseline that transfer has to beat."""

    kind: Literal["scratch"] = "scratch"


class LpFt(Section):
    """The head first, then everything from that head (Kumar et al. 2022, arXiv:2202.10054)."""

    kind: Literal["lp_ft"] = "lp_ft"
    head_epochs: Positive = Field(1.0, description="Epochs of the first stage, of training.num_train_epochs.")
    head_learning_rate: Positive | None = Field(
        None, description="Rate of the first stage; that of strategy=head if left out."
    )
    head_lr_multiplier: HeadMultiplier = 1.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="As with strategy=full, in the second stage."
    )


class Gradual(Section):
    """One more group of blocks each stage, from the top, everything in the last (ULMFiT, arXiv:1801.06146)."""

    kind: Literal["gradual"] = "gradual"
    blocks_per_stage: PositiveInt = Field(1, description="Blocks that join in each stage after the head's own.")
    stage_epochs: Positive | None = Field(
        None, description="Epochs of each stage but the last, which takes the rest; equal shares if left out."
    )
    head_lr_multiplier: HeadMultiplier = 10.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="As with strategy=full; ULMFiT takes 1/2.6."
    )


class Stage(Section):
    """One stage: who learns, for how long, at what rate."""

    strategy: Annotated[
        Annotated[Full | HeadOnly | Freeze | BitFit | Norms, Field(discriminator="kind")], BeforeValidator(tag_of_text)
    ]
    epochs: Positive
    learning_rate: Positive | None = Field(None, description="The strategy's own default if left out.")


class Stages(Section):
    """Stages one after the other, in one run with one set of logs."""

    kind: Literal["stages"] = "stages"
    stages: tuple[Stage, ...] = Field(description="In order; their epochs add up to the run's.")

    @field_validator("stages")
    @classmethod
    def _some(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if not stages:
            raise ValueError("a list of at least one stage, such as [{strategy: head, epochs: 1}]")
        return stages


class Features(Section):
    """Fixed features of a chosen depth and a classifier or regressor of scikit-learn on them."""

    kind: Literal["features"] = "features"
    layer: Literal["last", "middle"] | PositiveInt = Field(
        "last", description="Pooled features after the last block, the middle one, or block N; the model is cut there."
    )
    classifier: Literal["auto", "logistic", "ridge", "svm", "knn"] = Field(
        "auto", description="auto: logistic for classes, ridge for numbers, which also take svm (linear) and knn."
    )
    regularization: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = Field(
        None, description="Values tried on validation: C, ridge's alpha or k; a wide grid if left out."
    )


Candidate = Literal["head", "freeze", "lora", "lp_ft", "full", "scratch"]
CANDIDATES: tuple[Candidate, ...] = get_args(Candidate)


class Auto(Section):
    """One of the others, chosen from measurements before training; `hf-finetune advise` shows them."""

    kind: Literal["auto"] = "auto"
    share: Share = Field(0.1, description="Most time for the measurements, as a share of a full fine-tuning's.")
    candidates: Annotated[tuple[Candidate, ...], BeforeValidator(list_of_one), Field(min_length=1)] = Field(
        CANDIDATES, description="Strategies to choose from."
    )


_KINDS = Full | HeadOnly | Freeze | Lora | Peft | BitFit | Norms | Scratch | LpFt | Gradual | Stages | Features | Auto
Strategy = Annotated[_KINDS, Field(discriminator="kind")]
