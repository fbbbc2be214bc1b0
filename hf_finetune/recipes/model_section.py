"""The `model:` section: the checkpoint, its new head, and what is changed in it before training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from hf_finetune.recipes.section import Positive, Probability, Section, tag_of_text

Activation = Literal["relu", "gelu", "silu", "tanh", "leaky_relu", "elu", "mish", "hardswish"]


class LinearHead(Section):
    """One linear layer from the checkpoint's pooled features to the labels."""

    kind: Literal["linear"] = "linear"


class MlpHead(Section):
    """Hidden layers before the output layer."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = Field((512,), min_length=1, description="Widths of the hidden layers, in order.")
    activation: Activation = "relu"
    dropout: Probability = Field(0.0, description="Dropout after each hidden layer's activation.")
    norm: Literal["none", "batch", "layer"] = Field("none", description="Norm after each hidden layer's product.")


class CosineHead(Section):
    """Cosine of features and class directions, times a learned scale (Gidaris and Komodakis 2018, arXiv:1804.09458)."""

    kind: Literal["cosine"] = "cosine"
    scale: Positive = Field(16.0, description="The scale at the start; it learns.")


Head = Annotated[LinearHead | MlpHead | CosineHead, Field(discriminator="kind")]


class Model(Section):
    """The checkpoint, its new head, and what is changed in it."""

    checkpoint: str = Field(description="Hub id, folder, or package:NAME for one that ships with hf_finetune.")
    revision: str | None = Field(
        None, description="Commit, tag or branch of the checkpoint; a saved run has it pinned."
    )
    head: Annotated[Head, BeforeValidator(tag_of_text)] = LinearHead()
    pooling: Literal["cls", "mean", "max", "gem", "attention"] | None = Field(
        None, description="How features over tokens or pixels become one vector; the family's own where left out."
    )
    activation: Activation | None = Field(None, description="Put in the place of the hidden layers' activation.")
    dropout: Probability | None = Field(None, description="Rate of every dropout layer of the backbone.")
    drop_path: Probability | None = Field(
        None, description="Stochastic depth (arXiv:1603.09382): rate of the last block, rising from 0 at the first."
    )
    batch_norm: Literal["train", "frozen"] | None = Field(
        None, description="BatchNorm of learning parts: statistics move, or stay the checkpoint's; train if left out."
    )
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Share of each batch in the running statistics; small data wants about 0.01 to 0.1."
    )
    drop_blocks: PositiveInt | Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = Field(
        None, description="Remove so many blocks from the top, or the listed ones (counted from 1 at the stem)."
    )
    reinit_blocks: PositiveInt | None = Field(
        None, description="Give the top so many blocks random weights (Zhang et al. 2021, arXiv:2006.05987)."
    )
    in_channels: PositiveInt | None = Field(None, description="Channels of the images, where they are not 3.")
    stem_weights: Literal["repeat", "mean", "sum"] = Field(
        "repeat", description="How the stem's pretrained filters become those for in_channels."
    )
    image_size: PositiveInt | None = Field(
        None, description="Side of the square images the model sees; position embeddings are resized."
    )
    max_length: PositiveInt | None = Field(
        None,
        description="Tokens the model takes at once; beyond the checkpoint's own, position embeddings are resized.",
    )
