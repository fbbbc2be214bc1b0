"""What `data.clean` drops from the training rows, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.data.checks import Inspection, inspect, paths_of
from hf_finetune.data.cleaning_copies import Copy, comparable, exact_copies, near_copies
from hf_finetune.data.cleaning_hashes import look_at_images
from hf_finetune.data.shown import shown
from hf_finetune.data.splits import at_most_per_class
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.data.labels import LabelSpace
    from hf_finetune.data.roles import LabeledSplit
    from hf_finetune.recipes.schema import Clean

# Kinds of what is dropped, in the order they are told in; each with the words of one and of several.
_WORDS = {
    "empty": ("empty row", "empty rows"),
    "duplicate": ("exact copy", "exact copies"),
    "near_duplicate": ("near copy", "near copies"),
    "max_per_class": ("row above max_per_class", "rows above max_per_class"),
}
# What leaves out the rule of a kind, for those that can drop every row.
_OFF = {
    "empty": "data.clean.empty=false",
    "duplicate": "data.clean.duplicates=false",
    "near_duplicate": "data.clean.near_duplicates=null",
}


@dataclass
class Cleaning:
    """The rules of `data.clean`, and what they have dropped.

    Args:
        clean: the rules.
        labels: names of the classes.
        seed: of the rows that max_per_class keeps.
        channels: as `inspect` takes it.
        dropped: {"split", "row", "path", "kind", "reason"} of each; `row` counts in the source split.
        looked_at: training rows before.
        contradictions: how many of the dropped copies had another label than the row that stays.
        not_compared: training images that are near copies of none, as their alpha channel is no part of the hash.
    """

    clean: Clean
    labels: LabelSpace
    seed: int
    channels: int | None = None
    dropped: list[dict[str, Any]] = field(default_factory=list)
    looked_at: int = 0
    contradictions: int = 0
    not_compared: int = 0

    def in_words(self) -> str:
        """One line: how many rows were dropped, and of which kinds."""
        line = f"data.clean: nothing to drop in {self.looked_at:,} training rows"
        if self.dropped:
            line = (
                f"data.clean: dropped {self._counts()} of {self.looked_at:,} training rows (cleaned.jsonl lists them)"
            )
        if self.contradictions:
            line += f"; copies with another label than the row that stays: {self.contradictions:,}"
        if self.not_compared:
            line += f"; not compared by near_duplicates, for their alpha channel: {self.not_compared:,}"
        return line

    def _counts(self) -> str:
        counts = {kind: sum(row["kind"] == kind for row in self.dropped) for kind in _WORDS}
        return ", ".join(f"{count:,} {_WORDS[kind][count != 1]}" for kind, count in counts.items() if count)

    def before_validation(self, train: LabeledSplit, validation: LabeledSplit | None) -> np.ndarray:
        """Drop empty rows and copies, before a share of the rows is held out for validation.

        A validation share therefore holds no copy of a training row either. Of copies the first stays; of copies of a
        row of a validation split no training row does. Broken rows, and rows without a label, stay: data.on_error says
        what happens to them. The test split takes no part.

        Args:
            train: the rows that may train.
            validation: the validation split, where it is one of its own.

        Returns:
            numbers of the training rows that stay, sorted.

        Raises:
            DataError: none stays.
        """
        self.looked_at = len(train.rows)
        looked = inspect(train.rows, self.channels)
        numbers = np.array(train.rows["id"][:], dtype=np.int64)
        found: dict[int, tuple[str, str]] = {}
        for place, kind, reason in [*self._empty(looked), *self._copies(train, looked, validation)]:
            found.setdefault(place, (kind, reason))
        self._drop(train, numbers, found)
        if len(found) == len(numbers):
            self._refuse_no_rows(len(numbers))
        return np.delete(numbers, list(found))

    def after_validation(self, train: LabeledSplit) -> np.ndarray:
        """Draw at most max_per_class rows of each class from those that train; the numbers that stay, sorted.

        Raises:
            DataError: the labels are no single classes.
        """
        numbers, strata = np.array(train.rows["id"][:], dtype=np.int64), train.strata(self.labels)
        limit = self.clean.max_per_class
        if limit is None:
            return numbers
        if strata is None:
            raise DataError(
                f"data.clean.max_per_class={limit} counts the rows of each class, and the labels are "
                f"{self.labels.problem_type.replace('_', ' ')}: use data.max_train_samples."
            )
        kept = at_most_per_class(numbers, strata, limit, self.seed)
        names = [self.labels.names[strata[row]] for row in numbers]
        above = np.flatnonzero(~np.isin(numbers, kept)).tolist()
        reasons = {
            place: ("max_per_class", f"the class {names[place]} has more than {limit:,} rows") for place in above
        }
        self._drop(train, numbers, reasons)
        return kept

    def _refuse_no_rows(self, rows: int) -> None:
        # No folder of the run will list them in cleaned.jsonl: the first is told.
        first, kinds = self.dropped[0], {row["kind"] for row in self.dropped}
        path = f" ({shown(first['path'], 300)})" if first["path"] else ""
        # Of copies one would train, were there none in the validation split.
        other = "name another validation split, " if kinds - {"empty"} else ""
        rules = ", ".join(rule for kind, rule in _OFF.items() if kind in kinds)
        raise DataError(
            f"data.clean leaves no training row: it dropped {self._counts()} of {rows:,} rows. The first is "
            f"{first['split']} row {first['row']}{path}: {first['reason']}.\n"
            f"Mend the data, {other}or leave rules out: {rules}; data.clean=null drops nothing."
        )

    def _empty(self, looked: Inspection) -> Iterator[tuple[int, str, str]]:
        if self.clean.empty:
            for place, (reason, plain) in enumerate(zip(looked.reasons, looked.plain, strict=True)):
                if plain or (reason or "").startswith("the text is"):
                    yield place, "empty", reason or "all pixels of the image are equal"

    def _copies(
        self, train: LabeledSplit, looked: Inspection, validation: LabeledSplit | None
    ) -> Iterator[tuple[int, str, str]]:
        # Rows of a validation split come first, so that they are the originals.
        splits = [(train, looked)]
        if validation is not None:
            splits.insert(0, (validation, inspect(validation.rows, self.channels)))
        origins = [(split, row) for split, _ in splits for row in split.rows["id"][:]]
        before = len(origins) - len(train.rows)
        for copy in self._find_copies(splits):
            if copy.place < before:
                continue  # copies within a validation split are the user's own
            split, row = origins[copy.original]
            given, other = train.targets[origins[copy.place][1]], split.targets[row]
            reason = "exact copy of" if copy.bits is None else f"{copy.bits} of 64 bits away from"
            reason += f" {split.name} row {row}"
            if given != other:
                self.contradictions += 1
                reason += f", which has another label ({self._name(other)}, not {self._name(given)})"
            yield copy.place - before, "duplicate" if copy.bits is None else "near_duplicate", reason

    def _find_copies(self, splits: Sequence[tuple[LabeledSplit, Inspection]]) -> list[Copy]:
        digests = [digest for split, looked in splits for digest in _digests_of_labeled(split, looked)]
        copies = exact_copies(digests) if self.clean.duplicates else []
        if self.clean.near_duplicates is None or "image" not in splits[0][0].rows.column_names:
            return copies
        self.not_compared = sum(splits[-1][1].masked)  # train is the last
        places = comparable(digests, [looked for _, looked in splits], copies)
        hashes = np.concatenate([look_at_images(split.rows).hashes for split, _ in splits])
        return [*copies, *near_copies(hashes, places, self.clean.near_duplicates)]

    def _name(self, target: Any) -> str:
        name = self.labels.decode(target)
        return " + ".join(map(str, name)) or "none" if isinstance(name, list) else str(name)

    def _drop(self, train: LabeledSplit, numbers: np.ndarray, reasons: dict[int, tuple[str, str]]) -> None:
        """Write down the rows at these places, with the kind and the reason of each."""
        paths = paths_of(train.rows) if reasons else []
        self.dropped += [
            {"split": train.name, "row": int(numbers[place]), "path": paths[place], "kind": kind, "reason": reason}
            for place, (kind, reason) in reasons.items()
        ]


def _digests_of_labeled(split: LabeledSplit, looked: Inspection) -> list[str]:
    """The digests, "" where the label is missing: such a row must not be the one that stays."""
    return [
        "" if row in split.reasons else digest for row, digest in zip(split.rows["id"][:], looked.digests, strict=True)
    ]
