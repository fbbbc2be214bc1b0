"""From a recipe's data section to rows that are streamed for training, and bounded splits in memory for scores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value, concatenate_datasets

from hf_finetune.console import say
from hf_finetune.data.bands import holds_arrays
from hf_finetune.data.checks import inspect
from hf_finetune.data.columns import Columns, find_columns, holds_paths, is_list
from hf_finetune.data.label_columns import RawLabels, encode_labels, find_label_space, read_labels
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.load import TaskData, are_natural, fingerprint_of, leave_out_broken, warnings_of
from hf_finetune.data.ranks import first_on_each_machine
from hf_finetune.data.roles import LabeledSplit
from hf_finetune.data.shards import RowSource
from hf_finetune.data.shown import shown
from hf_finetune.data.split_names import settle_splits
from hf_finetune.data.stream_choice import Chosen, all_over, choose
from hf_finetune.data.stream_sources import open_stream
from hf_finetune.data.streamed import StreamedRows
from hf_finetune.errors import DataError
from hf_finetune.recipes.pairs_stream import GROUPS_OF_STREAM

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Data, Recipe

EVAL_ROWS = 2_000  # of a split that scores, where data.max_eval_samples says nothing
_HEAD = 1_000  # rows that tell which column is what
_LABELS = 20_000  # rows that tell the labels, where the column's type does not
_SAMPLE = 2_000  # rows that tell how labels are spread, where it does


def load_stream(recipe: Recipe, source: Any = None) -> TaskData:
    """The data of a recipe with `data.streaming`; the same on every process.

    Validation and test are rows from all over their splits, at most `data.max_eval_samples` of each (2,000 if left
    out), held in memory; a share of train is drawn so too, and only the rows that are drawn do not train.

    Raises:
        DataError: as `load_data`; a row that training meets and cannot use stops it then.
        UserError: the network is missing.
    """
    with first_on_each_machine():
        sources = open_stream(recipe.data, source)
    data = settle_splits(recipe.data, sources, recipe.evaluation.test)  # type: ignore[arg-type]  # asks for names alone
    if data.group is not None and any(isinstance(share, float) for share in (data.validation, data.test_split)):
        raise DataError(f"data.group={data.group}: {GROUPS_OF_STREAM}.")
    train = _take(sources, data.train_split, "data.train_split")
    columns = _columns(train, recipe, data)
    chosen = choose(train, data, recipe.data_seed, EVAL_ROWS)
    space, sample = _labels(train, columns, data, recipe.data_seed)

    def rows(of: RowSource, name: str, taken: Chosen | None = None) -> StreamedRows:
        used: dict[str, Any] = {} if taken is None else {"chunks": taken.chunks, "left_out": taken.left_out}
        return StreamedRows(of, name, columns, space, on_error=data.on_error, sample=sample, **used)

    splits = {"train": rows(train, data.train_split, chosen.train)}
    scored: dict[str, LabeledSplit] = {}
    warnings: list[str] = []
    for role, named in (("validation", data.validation), ("test", data.test_split)):
        if isinstance(named, str):
            other = _take(sources, named, "data.validation" if role == "validation" else "data.test_split", columns)
            warnings += _same_files(train, other, named)
            held = all_over(other.sizes, data.max_eval_samples or EVAL_ROWS, recipe.data_seed, role)
            scored[role] = _in_memory(rows(other, named), held)
        elif named is not None and (role != "test" or recipe.evaluation.test):  # else held out, and left alone
            scored[role] = _in_memory(rows(train, data.train_split), chosen.held[role])
    looked = {role: inspect(split.rows, recipe.model.in_channels) for role, split in scored.items()}
    kept, looked, skipped = leave_out_broken(scored, looked, data.on_error)
    streamed = splits["train"]
    say(_in_words(streamed, kept))
    return TaskData(
        train=streamed,  # type: ignore[arg-type]  # as far as training asks
        validation=kept["validation"],
        test=kept.get("test"),
        labels=space,
        columns=columns,
        natural_images=are_natural(looked["validation"], space),
        skipped=skipped,
        warnings=warnings + warnings_of(kept, looked, space, sample, data.problem_type),
        fingerprint=_fingerprint(train, chosen.train, fingerprint_of(kept, looked, space)),
        whence={"train": data.train_split, "validation": data.validation, "test": data.test_split},
    )


def labels_of_stream(recipe: Recipe) -> LabelSpace:
    """The labels that a stream has, for a model that does not name its own."""
    with first_on_each_machine():
        sources = open_stream(recipe.data)
    data = settle_splits(recipe.data, sources)  # type: ignore[arg-type]
    train = _take(sources, data.train_split, "data.train_split")
    return _labels(train, _columns(train, recipe, data), data, recipe.data_seed)[0]


def _take(sources: Mapping[str, RowSource], name: str, key: str, columns: Columns | None = None) -> RowSource:
    if name in sources:
        wanted = [] if columns is None else [column for column in vars(columns).values() if column]
        if lacking := [column for column in wanted if column not in sources[name].features]:
            raise DataError(
                f"{key}={name}: the split lacks the column '{shown(lacking[0])}' that training rows have. Its columns "
                f"are: {', '.join(map(shown, sources[name].features))}."
            )
        return sources[name]
    found = ", ".join(f"{split} ({int(source.sizes.sum()):,} rows)" for split, source in sources.items())
    raise DataError(f"{key}={name}: there is no such split. The splits are: {found}. Say {key}=NAME.")


def _same_files(train: RowSource, other: RowSource, name: str) -> list[str]:
    """Copies among streamed rows and those that score are not looked for; files that hold both are."""
    files = set(getattr(train, "files", ()))
    both = [file for file in getattr(other, "files", ()) if file in files]
    if not both:
        return []
    count = "1 file" if len(both) == 1 else f"{len(both):,} files"
    return [f"{count} of the {name} split train too, such as {shown(both[0], 200)}: its score flatters the model."]


def _columns(train: RowSource, recipe: Recipe, data: Data) -> Columns:
    """Which column is what, as the first rows tell."""
    first = int(np.flatnonzero(train.sizes)[0])
    head = Dataset(train.read(first, list(train.features)).slice(0, _HEAD).cast(train.features.arrow_schema))
    columns = find_columns(head, recipe.task, data)
    if columns.image and holds_arrays(head.features[columns.image]):
        raise DataError(
            f"The column '{columns.image}' holds arrays, which are not streamed: store images (PNG, JPEG), or say "
            "data.streaming=false."
        )
    if columns.image and getattr(train, "strange", False) and holds_paths(head, columns.image):
        raise DataError(
            f"data.dataset={data.dataset}: the column '{columns.image}' holds paths of images, and a data set of the "
            "Hub has the images in it. Download it, and name its folder or files."
        )
    return columns


def _labels(train: RowSource, columns: Columns, data: Data, seed: int) -> tuple[LabelSpace, list[Any]]:
    """What the model answers, and encoded labels of rows from all over the split."""
    feature = train.features[columns.label]
    are_told = isinstance(feature.feature if is_list(feature) else feature, ClassLabel)
    places = all_over(train.sizes, _SAMPLE if are_told else _LABELS, seed, "labels")
    parts = []
    for chunk, offsets in places.items():
        table = train.read(chunk, [columns.label]).take(offsets)
        parts.append(Dataset(table.cast(Features({columns.label: feature}).arrow_schema)))
    rows = concatenate_datasets(parts)
    raw: RawLabels = read_labels(rows, columns.label)
    space = find_label_space(raw, columns.label, data.problem_type)
    targets, _, _ = encode_labels(raw, space)
    return space, [target for target in targets if target is not None]


def _in_memory(rows: StreamedRows, held: Mapping[int, np.ndarray]) -> LabeledSplit:
    """Rows of a source, named by chunk and place in it, with their labels."""
    begins = rows.ends - rows.source.sizes
    numbers = np.concatenate([begins[chunk] + offsets for chunk, offsets in sorted(held.items())])
    found = rows.read(numbers)
    targets = [row.label for row in found]
    is_class = rows.labels.problem_type == "single_label_classification"
    number = Value("int64" if is_class else "float64")
    kinds = rows.features
    kinds["label"] = List(number) if any(isinstance(target, list) for target in targets) else number
    inputs: dict[str, Any] = {role: [row.values[role] for row in found] for role in list(kinds)[1:-1]}
    table = Dataset.from_dict({"id": [row.id for row in found], **inputs, "label": targets}, features=Features(kinds))
    faults = {row.id: f"{row.fault}{rows.file_of(row.id)}" for row in found if row.fault}
    return LabeledSplit(rows.name, table, targets, faults)


def _fingerprint(train: RowSource, chosen: Chosen, scored: str) -> str:
    digest = hashlib.blake2b(f"{train.stamp} {scored}".encode(), digest_size=16)
    digest.update(chosen.chunks.tobytes())
    for chunk, offsets in sorted(chosen.left_out.items()):
        digest.update(f"{chunk} {offsets.tolist()}".encode())
    return digest.hexdigest()


def _in_words(train: StreamedRows, kept: Mapping[str, Dataset]) -> str:
    files, chunks = len(getattr(train.source, "files", ())), len(train.chunks)
    where = f" of {files:,} {'file' if files == 1 else 'files'}" if files else ""
    scored = ", ".join(f"{len(split):,} {role}" for role, split in kept.items())
    return (
        f"note: {len(train):,} training rows stay in {chunks:,} {'chunk' if chunks == 1 else 'chunks'}{where} and are "
        f"read as they are needed; {scored} rows from all over their splits are in memory (data.max_eval_samples)."
    )
