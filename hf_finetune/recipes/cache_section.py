"""The `cache:` section: what a frozen part of the model has computed is kept, so that it runs once a sample."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from hf_finetune.recipes.section import Positive, Section


class Cache(Section):
    """The outputs of the frozen prefix: the stem and the blocks that do not learn."""

    prefix: Literal["auto", "on", "off"] = Field(
        "auto", description="auto: where it saves work; on: also where it saves little, an error where it cannot be."
    )
    dtype: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="Of what is kept. auto: as training computes, bf16 or fp32, and fp32 for evaluation; "
        "bf16: evaluation too.",
    )
    views: PositiveInt | None = Field(
        None,
        description="With random changes of images: so many fixed views of each training image, epoch after epoch "
        "another; none are kept if left out.",
    )
    max_gb: Positive | None = Field(
        None,
        description="Most gigabytes of disk that this run's features may add, while those of all runs take nine tenths "
        "of the disk at most; half if left out.",
    )
