"""The splits of a recipe as the doctor sees them: every row, the broken ones too."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, DatasetDict

from hf_finetune.data.checks import Inspection, broken_rows, inspect, path_of
from hf_finetune.data.cleaning_hashes import ImageFacts, look_at_images
from hf_finetune.data.columns import Columns, find_columns
from hf_finetune.data.label_columns import RawLabels, encode_labels, find_label_space
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.legible import bad_bytes_named
from hf_finetune.data.roles import canonical_rows, labels_of
from hf_finetune.data.sources import open_source, take_split
from hf_finetune.data.split_names import settle_splits
from hf_finetune.data.splits import subset
from hf_finetune.errors import DataError, UserError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe

_ROLES = {"train": "data.train_split", "validation": "data.validation", "test": "data.test_split"}


@dataclass(frozen=True)
class Split:
    """One split of the source.

    Args:
        name: in the source.
        source: with all its columns.
        rows: columns id, image or text (and text_pair), label.
        raw: the labels as they stand.
        targets: the labels encoded; None where that cannot be.
        reasons: why rows have no target.
        strangers: class names that the train split does not have, and how often they occur.
        channels: as `inspect` takes it.
    """

    name: str
    source: Dataset
    rows: Dataset
    raw: RawLabels
    targets: list[Any]
    reasons: dict[int, str]
    strangers: dict[str, int]
    channels: int | None

    @cached_property
    def looked(self) -> Inspection:
        """What is in each row."""
        return inspect(self.rows, self.channels)

    @cached_property
    def facts(self) -> ImageFacts | None:
        """Sizes, modes and perceptual hashes of the images; None for texts."""
        return look_at_images(self.rows) if "image" in self.rows.column_names else None

    @cached_property
    def broken(self) -> list[dict[str, Any]]:
        """Rows that cannot be used, as {"split", "row", "path", "reason"}."""
        return broken_rows(self.name, self.rows, self.looked, self.reasons)

    @cached_property
    def readable(self) -> np.ndarray:
        """Rows whose image or text can be read."""
        return np.array([row for row, reason in enumerate(self.looked.reasons) if reason is None], dtype=np.int64)

    def show(self, row: int) -> dict[str, Any]:
        """What tells people which row it is: {"split", "row", "path" or "text"}."""
        about: dict[str, Any] = {"split": self.name, "row": int(row)}
        if path := path_of(self.rows, int(row)):
            about["path"] = path
        if "text" in self.rows.column_names:
            about["text"] = self.rows[int(row)]["text"]
        return about


@dataclass(frozen=True)
class Material:
    """What there is to look at.

    Args:
        recipe: of the user.
        labels: of the train split.
        columns: where inputs and label stand.
        splits: those that the recipe names, train first.
        others: rows of the source's other splits.
        faults: splits that the recipe names and that cannot be used, and why.
    """

    recipe: Recipe
    labels: LabelSpace
    columns: Columns
    splits: list[Split]
    others: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def train(self) -> Split:
        """The split that trains."""
        return self.splits[0]

    @property
    def has_classes(self) -> bool:
        """Whether each row has one class."""
        return self.labels.problem_type == "single_label_classification"

    def name(self, target: Any) -> str:
        """A label in words."""
        name = self.labels.decode(target)
        return " + ".join(map(str, name)) or "none" if isinstance(name, list) else str(name)

    def sample(self, limit: int, only: Split | None = None, labeled: bool = False) -> list[tuple[Split, np.ndarray]]:
        """Readable rows, at most `limit` in all, seeded; every class in proportion where `labeled` rows are wanted.

        Args:
            limit: rows.
            only: of this split; of all splits if None.
            labeled: leave out rows without a label.
        """
        pool = [
            (place, row)
            for place, split in enumerate(self.splits)
            if only is None or split is only
            for row in split.readable.tolist()
            if not labeled or split.targets[row] is not None
        ]
        strata = [self.splits[place].targets[row] for place, row in pool] if labeled and self.has_classes else None
        chosen = subset(np.arange(len(pool)), strata, limit, self.recipe.seed, "doctor")
        rows: list[list[int]] = [[] for _ in self.splits]
        for place, row in (pool[number] for number in chosen):
            rows[place].append(row)
        return [
            (split, np.array(taken, dtype=np.int64)) for split, taken in zip(self.splits, rows, strict=True) if taken
        ]


def gather(recipe: Recipe, source: Dataset | DatasetDict | None = None) -> Material:
    """Open what a recipe names, without stopping at broken rows, strange labels or a missing test split.

    Raises:
        DataError: the train split cannot be found or understood.
        UserError: the network or a package is missing, or the recipe has several tasks.
    """
    if recipe.tasks:
        name, task = next(iter(recipe.tasks.items()))
        raise UserError(
            f"The doctor looks at one label column, and the recipe has several tasks: add tasks={{}} data.label="
            f"{task.label} to look at {name}, and so on."
        )
    found = open_source(recipe.data, source)
    with bad_bytes_named(found):
        return _gather(recipe, found)


def _gather(recipe: Recipe, found: dict[str, Dataset]) -> Material:
    data = settle_splits(recipe.data, found)
    recipe = recipe.model_copy(update={"data": data})
    train = take_split(found, data.train_split, _ROLES["train"])
    columns = find_columns(train, recipe.task, data)
    labels = find_label_space(labels_of(train, data.train_split, columns), columns.label, data.problem_type)
    splits: list[Split] = []
    faults: list[str] = []
    for role, named in (("train", data.train_split), ("validation", data.validation), ("test", data.test_split)):
        if isinstance(named, str) and named not in [split.name for split in splits]:
            try:
                splits.append(_read(take_split(found, named, _ROLES[role]), named, columns, labels, recipe))
            except DataError as error:
                if role == "train":
                    raise
                faults.append(str(error))
    names = [split.name for split in splits]
    others = {name: len(rows) for name, rows in found.items() if name not in names}
    return Material(recipe, labels, columns, splits, others, faults)


def _read(source: Dataset, name: str, columns: Columns, labels: LabelSpace, recipe: Recipe) -> Split:
    raw = labels_of(source, name, columns)
    targets, reasons, strangers = encode_labels(raw, labels)
    rows, channels = canonical_rows(source, columns, targets, labels), recipe.model.in_channels
    return Split(name, source, rows, raw, targets, reasons, strangers, channels)
