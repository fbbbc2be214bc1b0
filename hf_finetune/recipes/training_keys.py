"""Keys of `training:` that transformers' TrainingArguments does not have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

OWN: dict[str, tuple[Any, Any]] = {
    "max_minutes": (
        Annotated[float, Field(gt=0)] | None,
        Field(
            None,
            description="Stop at the end of the step in which so many minutes of training are used up (validation "
            "included; time before an interruption counts), then validate and keep the best.",
        ),
    ),
    "skip_nonfinite_steps": (
        Annotated[int, Field(ge=0)] | None,
        Field(
            None,
            description="Leave out up to so many optimizer steps of a run whose loss or gradient is NaN or infinite; "
            "the next one stops it, as does the first if left out.",
        ),
    ),
}
