"""From a recipe's data section to checked splits: reads as the table of contents of the data room."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, DatasetDict

from hf_finetune.data.checks import Inspection, broken_rows, count_copies, refuse
from hf_finetune.data.cleaning import Cleaning
from hf_finetune.data.columns import Columns, find_columns
from hf_finetune.data.folds import POOL, look_once, usable
from hf_finetune.data.groups import groups_in_common
from hf_finetune.data.label_warnings import label_warnings
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.legible import bad_bytes_named
from hf_finetune.data.ranks import first_on_each_machine
from hf_finetune.data.roles import ROLES, LabeledSplit, choose_rows, encode_splits
from hf_finetune.data.shown import shown
from hf_finetune.data.sources import open_source, take_split
from hf_finetune.data.split_names import settle_splits
from hf_finetune.errors import DataError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe


@dataclass(frozen=True)
class TaskData:
    """Splits ready for training, each with the columns id, image or text (and text_pair), label.

    `id` is the row's number in its source split. `image` is stored encoded (`datasets.Image(decode=False)`). `label`
    is a class index, a multi-hot list, a float or a list of floats, as `labels.problem_type` says.

    Args:
        train: rows that learn; with data.streaming, a `StreamedRows`.
        validation: rows that choose the best checkpoint.
        test: rows that only measure; None where the recipe has no test.
        labels: what the model answers.
        columns: where image or text and label stood in the source.
        natural_images: most training images show colour and the labels are classes, so that a mirrored or cropped
        image is
            taken to keep its label. Grey images (scans, X-rays, digits) and regression (counts, sizes, angles) are not.
        skipped: rows left out by data.on_error=skip, as {"split", "row", "path", "reason"}.
        warnings: lines for the user.
        fingerprint: changes when any row's content, number, label, or the label names change.
        cleaning: what data.clean has dropped; None where it is off.
        mixed: of each data set, where tasks bring several, its number of training rows and its weight.
        contents: by role, a checksum of what its images or texts show, in order; none where tasks bring data sets.
        whence: by role, the split of the source or the share of train, with no `auto`; none where there are tasks.
        held_out: the fold that `data.fold` keeps from training, to be predicted in the end; None without folds.
        pool: the rows of train that all folds have in common, before any is held out; None without folds.
    """

    train: Dataset
    validation: Dataset
    test: Dataset | None
    labels: LabelSpace
    columns: Columns
    natural_images: bool
    skipped: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    fingerprint: str = ""
    cleaning: Cleaning | None = None
    mixed: tuple[tuple[int, float | None], ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)
    whence: Mapping[str, str | float | None] = field(default_factory=dict)
    held_out: Dataset | None = None
    pool: Dataset | None = None


def load_data(recipe: Recipe, source: Dataset | DatasetDict | None = None) -> TaskData:
    """Open, split and check the data of a recipe; `source` replaces `data.dataset`.

    The same on every process of a distributed run. The test split is set apart first and chooses nothing.

    Raises:
        DataError: the data cannot be used as it is, or the data section does not fit it.
        UserError: the network or a package is missing.
    """
    if recipe.data.streaming:
        from hf_finetune.data.stream_load import load_stream

        return load_stream(recipe, source)
    if recipe.tasks:
        from hf_finetune.data.tasks import load_tasks

        return load_tasks(recipe, source)
    with first_on_each_machine():
        data = recipe.data
        splits = open_source(data, source)
        data = settle_splits(data, splits, recipe.evaluation.test)
        with bad_bytes_named(splits):
            columns = find_columns(take_split(splits, data.train_split, "data.train_split"), recipe.task, data)
            labels, sources = encode_splits(splits, data, columns)
            cleaning = (
                None if data.clean is None else Cleaning(data.clean, labels, recipe.data_seed, recipe.model.in_channels)
            )
            pooled = data.fold is not None or recipe.evaluation.cross_validation is not None
            chosen = choose_rows(sources, labels, data, recipe.data_seed, cleaning, pooled)
            if not recipe.evaluation.test:
                chosen.pop("test", None)  # a share of train: held out, so that nothing is trained on it
            held = ("train", "held_out", *(("validation",) if isinstance(data.validation, float) else ()))
            looked = look_once(chosen, held, recipe.model.in_channels)
        pool, seen = usable(chosen[POOL], looked[POOL]) if pooled else (None, None)
        kept, looked, skipped = leave_out_broken(chosen, looked, data.on_error)
    return TaskData(
        train=kept["train"],
        validation=kept["validation"],
        test=kept.get("test"),
        labels=labels,
        columns=columns,
        natural_images=are_natural(looked["train"], labels),
        skipped=skipped,
        warnings=[
            *warnings_of(kept, looked, labels, kept["train"]["label"][:], data.problem_type),
            *groups_in_common(splits, data, kept),
        ],
        fingerprint=fingerprint_of(kept, looked, labels),
        cleaning=cleaning,
        contents={role: _content_of(found) for role, found in {**looked, **({POOL: seen} if seen else {})}.items()},
        whence={"train": data.train_split, "validation": data.validation, "test": data.test_split},
        held_out=kept.get("held_out"),
        pool=pool,
    )


def leave_out_broken(
    chosen: Mapping[str, LabeledSplit], looked: Mapping[str, Inspection], on_error: str
) -> tuple[dict[str, Dataset], dict[str, Inspection], list[dict[str, Any]]]:
    """Stop at broken rows, or leave them out, as data.on_error says."""
    broken = {
        role: broken_rows(chosen[role].name, chosen[role].rows, looked[role], chosen[role].reasons)
        for role in ROLES
        if role in chosen
    }
    # By split and row: validation and test may be shares of train.
    everything = sorted((row for rows in broken.values() for row in rows), key=lambda row: row["row"])
    splits = list(dict.fromkeys(source.name for source in chosen.values()))
    everything.sort(key=lambda row: splits.index(row["split"]))
    if on_error == "raise":
        refuse(everything, used=sum(len(chosen[role].rows) for role in ROLES if role in chosen))
    kept: dict[str, Dataset] = {}
    inspections: dict[str, Inspection] = {}
    for role, rows in broken.items():
        left_out = {row["row"] for row in rows}
        places = [place for place, row in enumerate(chosen[role].rows["id"][:]) if row not in left_out]
        if not places:
            raise DataError(f"No row of the {role} split can be used; the first: {rows[0]['reason']}.")
        kept[role] = chosen[role].rows.select(places) if rows else chosen[role].rows
        inspections[role] = looked[role].select(places)
    return kept, inspections, everything


def are_natural(looked: Inspection, labels: LabelSpace) -> bool:
    """See `TaskData.natural_images`."""
    return labels.problem_type != "regression" and float(np.mean(looked.coloured)) >= 0.5


def warnings_of(
    kept: Mapping[str, Dataset],
    looked: Mapping[str, Inspection],
    labels: LabelSpace,
    targets: Sequence[Any],
    problem_type: str | None,
) -> list[str]:
    """What the user should know of the rows: copies among splits, classes without rows, labels that look odd.

    Args:
        kept: the rows by role; where training rows are streamed, of the others alone.
        looked: what was found in them.
        labels: what the model answers.
        targets: encoded labels of the training rows; where they are streamed, of some of them.
        problem_type: that the recipe asks for.
    """
    lines: list[str] = []
    learnt = [role for role in ("train", "validation") if role in looked]
    digests = [digest for role in learnt for digest in looked[role].digests]
    whose = " or ".join({"train": "training"}.get(role, role) for role in learnt)
    for role, words in (("test", "test"), ("held_out", "held-out")):
        if role in kept and (copies := count_copies(digests, looked[role].digests)):
            lines.append(
                f"{copies:,} of {len(kept[role]):,} {words} rows are exact copies of {whose} rows: the {words} score "
                "may flatter the model."
            )
    if labels.problem_type == "single_label_classification" and "train" in kept:
        present = set(targets)
        absent = [name for index, name in enumerate(labels.names) if index not in present]
        if absent:
            listed = ", ".join(map(shown, absent[:10])) + (", ..." if len(absent) > 10 else "")
            lines.append(f"{len(absent):,} of {labels.num_labels:,} classes have no training row: {listed}.")
    return [*lines, *label_warnings(labels, targets, problem_type)]


def _content_of(looked: Inspection) -> str:
    return hashlib.blake2b("\n".join(looked.contents).encode(), digest_size=16).hexdigest()


def fingerprint_of(kept: Mapping[str, Dataset], looked: Mapping[str, Inspection], labels: LabelSpace) -> str:
    """A checksum of row numbers, content, labels and label names."""
    digest = hashlib.blake2b(repr((labels.problem_type, labels.names)).encode(), digest_size=16)
    for role in ROLES:
        if role in kept:
            rows = zip(kept[role]["id"][:], looked[role].contents, kept[role]["label"][:], strict=True)
            digest.update(role.encode())
            digest.update("\n".join(f"{row} {content} {label}" for row, content, label in rows).encode())
    return digest.hexdigest()
