"""What every section of a recipe stands on: immutable, and lenient towards text.

Text is taken as a field's type (`"1e-4"` is a float where a float is asked for), so that YAML files, the command line
and Python code share one rule. Nothing in this room imports torch or transformers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Task = Literal["image-classification", "text-classification"]
# Labels of a union of a plain value and sections without kinds; a fault's path leaves them out.
UNION_FORMS = ("(name)", "(images)", "(texts)")
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


def number_if_it_reads_as_one(value: Any) -> Any:
    """Text such as `0.1` is a share of the rows; any other text is a split's name."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def tag_of_text(value: Any) -> Any:
    """`strategy: lora` is short for `strategy: {kind: lora}`."""
    return {"kind": value} if isinstance(value, str) else value


def list_of_one(value: Any) -> Any:
    """A single name is a list of one."""
    return [value] if isinstance(value, str) else value


Share = Annotated[float, Field(gt=0.0, lt=1.0)]
SplitOrShare = Annotated[Share | str, BeforeValidator(number_if_it_reads_as_one)]
Names = Annotated[tuple[str, ...], BeforeValidator(list_of_one)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Chance = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a recipe: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
