"""The `tasks:` section: several label columns, of one data set or of several, learned by one model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from hf_finetune.recipes.section import Names, NotNegative, Positive, ProblemType, Section, SplitOrShare

TaskType = Literal["classification", "regression", "multi_label"]
PROBLEM_OF: dict[str, ProblemType] = {
    "classification": "single_label_classification",
    "regression": "regression",
    "multi_label": "multi_label_classification",
}


class TaskData(Section):
    """A data set that a task brings along; it is read, augmented and checked as `data` says."""

    dataset: str | tuple[str, ...] | dict[str, str | tuple[str, ...]] = Field(description="As data.dataset.")
    config: str | None = Field(None, description="Configuration name of a Hub data set.")
    revision: str | None = Field(None, description="Commit, tag or branch of a Hub data set.")
    image: str | None = Field(None, description="Image column; found from the features where left out.")
    text: str | None = Field(None, description="Text column; found from the features where left out.")
    text_pair: str | None = Field(None, description="Second text column, for pairs.")
    train_split: str = Field("auto", description="As data.train_split.")
    test_split: SplitOrShare | None = Field("auto", description="As data.test_split.")
    validation: SplitOrShare = Field(0.1, description="As data.validation.")
    max_train_samples: PositiveInt | None = Field(None, description="As data.max_train_samples, of this data set.")
    max_eval_samples: PositiveInt | None = Field(None, description="As data.max_eval_samples, of this data set.")
    weight: Positive | None = Field(
        None, description="How often its rows are drawn, relative to data.weight; by the number of rows if left out."
    )


class TaskSettings(Section):
    """One label column and what is made of it. Rows whose label is missing do not count for this task."""

    label: str = Field(description="Label column.")
    type: TaskType | None = Field(
        None, description="Follows from the column: floats mean regression, lists multi-label, else classes."
    )
    weight: NotNegative = Field(
        1.0, description="Of its loss in the sum; 0 trains nothing by it, not even its own head."
    )
    loss: Literal["auto", "cross_entropy", "focal", "bce", "mse", "mae", "huber"] = Field(
        "auto", description="As loss.kind, for this task; loss.gamma and loss.delta hold for all tasks."
    )
    metrics: Names | None = Field(None, description="Names of metrics; those of its type if left out.")
    data: TaskData | None = Field(None, description="A data set of its own; the recipe's if left out.")
