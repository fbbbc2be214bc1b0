"""The `loss:`, `average:` and `distill:` sections: what is minimised, which weights are kept, who teaches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from hf_finetune.recipes.section import Chance, NotNegative, Positive, Section


class Loss(Section):
    """What is minimised. Label smoothing is `training.label_smoothing_factor`."""

    kind: Literal["auto", "cross_entropy", "focal", "bce", "mse", "mae", "huber", "coral"] = Field(
        "auto",
        description="auto: cross-entropy for classes, BCE for multi-label, MSE for regression. bce on classes is "
        "one against the rest; coral (arXiv:1901.07884) is for classes in the order of their labels.",
    )
    gamma: NotNegative = Field(2.0, description="Focal loss (arXiv:1708.02002): how much easy samples count less.")
    delta: Positive = Field(1.0, description="Huber: where squared turns into absolute, in standard deviations.")
    class_weights: Literal["balanced"] | tuple[Positive, ...] | dict[str, Positive] | None = Field(
        None,
        description="Weight of each class: balanced (rows / (classes x rows of the class)), a list in the order of "
        "the labels, or by name (1 where left out). As if a class's rows were repeated so many times.",
    )
    sampling: Literal["shuffle", "balanced"] = Field(
        "shuffle", description="balanced: every class is drawn equally often; an epoch keeps its length."
    )
    logit_adjustment: NotNegative = Field(
        0.0,
        description="tau: tau x log class frequencies are added to the logits in training alone (Menon et al. 2020, "
        "arXiv:2007.07314); 1 is usual.",
    )
    r_drop: NotNegative = Field(
        0.0,
        description="Weight of the divergence between two passes with dropout (Liang et al. 2021, arXiv:2106.14448).",
    )
    l2_sp: NotNegative = Field(
        0.0,
        description="lambda: lambda / 2 x squared distance of pretrained weights to the checkpoint, in place of their "
        "weight decay (Li et al. 2018, arXiv:1802.01483); 0.001 to 0.1 is usual.",
    )
    balance: Literal["fixed", "uncertainty", "equal"] = Field(
        "fixed",
        description="Losses of several tasks: summed with tasks.NAME.weight (fixed), also divided by a variance that "
        "is learned (uncertainty: Kendall et al. 2018, arXiv:1705.07115), or by their own running size (equal: the "
        "gradient of the geometric mean, Chennupati et al. 2019, arXiv:1904.08492).",
    )


class Average(Section):
    """Averages of weights; each is kept only if it is better on validation."""

    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="Decay of an exponential moving average of the weights; 0.999 is usual."
    )
    soup: Literal["greedy", "uniform"] | None = Field(
        None, description="Average of the best checkpoints of this run (Wortsman et al. 2022, arXiv:2203.05482)."
    )
    soup_size: PositiveInt = Field(3, description="How many checkpoints at most.")


class Distill(Section):
    """Learning from another model's answers (Hinton et al. 2015, arXiv:1503.02531)."""

    teacher: str = Field(
        description="Folder of a finished run, or Hub id of a classifier, with the same label names in any order; of "
        "any family."
    )
    revision: str | None = Field(None, description="Commit, tag or branch of a teacher of the Hub.")
    temperature: Positive = Field(2.0, description="What logits are divided by; higher shows more of the small ones.")
    alpha: Chance = Field(0.5, description="Weight of the teacher's answers; the labels get the rest.")
    on: Literal["logits", "features", "both"] = Field(
        "logits",
        description="features: what the teacher's output layer receives, by a learned projection of the student's "
        "(FitNets, arXiv:1412.6550).",
    )
