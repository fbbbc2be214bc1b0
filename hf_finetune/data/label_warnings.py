"""Labels that can be learnt and may not mean what they seem to: a line each for the user."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from hf_finetune.data.labels import LabelSpace, Target
from hf_finetune.data.shown import shown

_FEW = 20  # different numbers that may be classes
_SHOWN = 5


def label_warnings(labels: LabelSpace, targets: Sequence[Target], requested: str | None) -> Iterator[str]:
    """Whole numbers taken for amounts, classes that differ in spelling alone, a -1 that may be a missing label.

    Args:
        labels: of the train split.
        targets: of the training rows.
        requested: data.problem_type.
    """
    if labels.problem_type == "regression":
        yield from _whole_numbers(labels, targets, requested)
        return
    if alike := twins(labels.names):
        told = "; ".join(f"'{shown(one)}' and '{shown(other)}'" for one, other in alike[:_SHOWN])
        more = f"; ... ({len(alike):,} pairs)" if len(alike) > _SHOWN else ""
        yield f"Classes that differ in case, spaces or the encoding of accents alone are learnt apart: {told}{more}."
    names = set(labels.names)
    if "-1" in names and names == {"-1", *map(str, range(len(names) - 1))} and len(names) > 2:
        yield (
            "-1 is learnt as a class of its own. Where it stands for a missing label, leave those rows out, or leave "
            "their label empty (data.on_error=skip passes over such rows)."
        )


def _whole_numbers(labels: LabelSpace, targets: Sequence[Target], requested: str | None) -> Iterator[str]:
    if requested is not None or labels.num_labels > 1:
        return
    values = {float(target) for target in targets}  # type: ignore[arg-type]  # one target a row
    if len(values) <= min(_FEW, len(targets) // 2) and all(value.is_integer() for value in values):
        yield (
            f"The labels are numbers with a decimal point, and all of their {len(values)} values are whole: they are "
            "predicted as amounts (regression). If they are classes, say data.problem_type=single_label_classification."
        )


def twins(names: Sequence[str]) -> list[tuple[str, str]]:
    """Names that differ in upper and lower case, white space or the encoding of accents alone."""
    first: dict[str, str] = {}
    plain = [(name, "".join(unicodedata.normalize("NFKC", name).casefold().split())) for name in names]
    return [(first[key], name) for name, key in plain if first.setdefault(key, name) != name]
