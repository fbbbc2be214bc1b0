"""A folder of class folders, or of data files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict, Features, Image, Value

from hf_finetune.console import say
from hf_finetune.data.files import reason_of
from hf_finetune.data.guarded import guarded
from hf_finetune.data.json_rows import check_json
from hf_finetune.data.kinds import IMAGE_SUFFIXES
from hf_finetune.data.shown import listed, shown
from hf_finetune.data.sizes import check_size
from hf_finetune.errors import DataError

# Pictures that Pillow may not read are rows as well: that a row cannot be used is told, that a file was passed over is
# not noticed.
_IMAGES = (*IMAGE_SUFFIXES, ".avif", ".heic", ".heif", ".svg", ".psd", ".ico", ".tga", ".jpe")
_JSON = (".json", ".jsonl", ".ndjson")

# Names of folders that are splits, and the split they are.
_SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


def read_folder(folder: Path, config: str | None, train_split: str) -> dict[str, Dataset]:
    """Read a folder: one made by `save_to_disk`, class folders of images, or data files as the Hub keeps them.

    Class folders lie in the folder itself (one split) or in folders called train, validation and test. An image's
    label is the name of its class folder, at any depth below it. Files are not opened here: a broken one is found by
    the inspection.

    Raises:
        DataError: the folder holds nothing of this kind.
    """
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        _check_saved(folder)
        try:
            saved = datasets.load_from_disk(str(folder))
            for rows in saved.values() if isinstance(saved, DatasetDict) else [saved]:
                rows.data.validate(full=True)  # pyarrow follows offsets wherever they point
        except Exception as error:  # damaged files raise errors of many kinds
            raise DataError(f"data.dataset={folder}: what save_to_disk wrote is damaged: {reason_of(error)}") from error
        return dict(saved) if isinstance(saved, DatasetDict) else {train_split: saved}
    folders = _subfolders(folder)
    split_folders = [entry for entry in folders if entry.name.lower() in _SPLITS]
    # A class may be called "train": folders are splits only if they hold class folders.
    if any(_has_image_folders(entry) for entry in split_folders):
        if others := [entry.name for entry in folders if entry not in split_folders and _images_below(entry)]:
            named = ", ".join(entry.name for entry in split_folders)
            raise DataError(
                f"data.dataset={folder}: are {named} splits or classes? Beside them images lie in "
                f"{', '.join(others[:5])}. Name the splits' folders: data.dataset={{train: FOLDER, test: FOLDER}}."
            )
        return {_SPLITS[entry.name.lower()]: read_class_folders(entry) for entry in split_folders}
    if _has_image_folders(folder):
        return {train_split: read_class_folders(folder)}
    return _read_repository(folder, config)


def _check_saved(folder: Path) -> None:
    """Every table of a folder that `save_to_disk` made lies in it: a name in its state.json could lead elsewhere."""
    splits = folder / "dataset_dict.json"
    try:
        named = json.loads(splits.read_text(encoding="utf-8"))["splits"] if splits.is_file() else []
        strange = next((name for name in named if Path(str(name)).name != name), None)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{splits}: it names no splits, as save_to_disk writes them.") from error
    if strange is not None:
        raise DataError(f"{splits}: {str(strange)[:80]} is no folder beside it; the folder is not what it seems.")
    for state in [folder / "state.json", *folder.glob("*/state.json")]:
        try:
            files = json.loads(state.read_text(encoding="utf-8"))["_data_files"] if state.is_file() else []
            names = [file["filename"] for file in files]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{state}: it says nothing of the data's files, as save_to_disk writes it.") from error
        if strange := next((name for name in names if Path(str(name)).name != name), None):
            raise DataError(f"{state}: {str(strange)[:80]} is no file beside it; the folder is not what it seems.")
        for name in names:
            if (state.parent / name).is_file():
                check_size(state.parent / name)


def read_class_folders(folder: Path) -> Dataset:
    """One split: an image's label is the name of its class folder.

    Raises:
        DataError: there are no images in class folders.
    """
    paths: list[str] = []
    labels: list[str] = []
    empty: list[str] = []
    for class_folder in _subfolders(folder):
        found = [str(path) for path in _images_below(class_folder)]
        paths += found
        labels += [class_folder.name] * len(found)
        empty += [] if found else [class_folder.name]
    if not paths:
        raise DataError(f"{folder}: no images in class folders.")
    if odd := [path for path in paths if not _is_utf8(path)]:
        raise DataError(
            f"{folder}: the names of {len(odd):,} files are not UTF-8, such as '{shown(odd[0], 300)}': rename them "
            "(convmv does it)."
        )
    if empty:
        say(f"note: {folder} has {len(empty):,} class folders without an image, which are no classes: {listed(empty)}.")
    _tell_others(folder, paths)
    features = Features({"image": Image(decode=False), "label": Value("string")})
    images = [{"bytes": None, "path": path} for path in paths]
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tell_others(folder: Path, images: list[str]) -> None:
    """Files beside the images are left out; nobody should believe that they were used."""
    endings = Counter(
        path.suffix.lower() or "no ending"
        for class_folder in _subfolders(folder)
        for path in _visible_below(class_folder)
        if path.suffix.lower() not in _IMAGES and path.is_file()
    )
    if endings:
        told = ", ".join(f"{count:,} {shown(ending, 30)}" for ending, count in endings.most_common(5))
        say(
            f"note: {endings.total():,} files in the class folders of {folder} do not end like images and are left out "
            f"({told}); {len(images):,} do."
        )


def _subfolders(folder: Path) -> list[Path]:
    """The folders in a folder; a link that leads back above itself is none: all images would be below it."""
    found = (entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(entry for entry in found if not (entry.is_symlink() and _leads_back(entry)))


def _leads_back(link: Path) -> bool:
    return link.parent.resolve().is_relative_to(link.resolve())


def _visible_below(folder: Path) -> list[Path]:
    """Everything below a folder but what is hidden, links to nowhere included."""
    return [
        path for path in folder.rglob("*") if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _images_below(folder: Path) -> list[Path]:
    return sorted(path for path in _visible_below(folder) if path.suffix.lower() in _IMAGES and not path.is_dir())


def _has_image_folders(folder: Path) -> bool:
    return any(_images_below(entry) for entry in _subfolders(folder))


def _read_repository(folder: Path, config: str | None) -> dict[str, Dataset]:
    """Data files laid out as in a repository of the Hub."""
    wanted = (
        "Give a folder of class folders of images (with or without train/validation/test above them), or of data files."
    )
    entries = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not entries:
        raise DataError(f"data.dataset={folder}: the folder is empty. {wanted}")
    has_images = any(path.suffix.lower() in _IMAGES for path in folder.iterdir())
    if has_images:
        raise DataError(f"data.dataset={folder}: the images lie in no class folders, so they have no labels. {wanted}")
    for path in (path for path in _visible_below(folder) if path.name.lower().removesuffix(".gz").endswith(_JSON)):
        check_size(path)
        check_json(path)
    try:
        with guarded(folder):
            return dict(datasets.load_dataset(str(folder), config))
    except DataError:
        raise
    except Exception as error:  # the builders raise errors of many kinds
        holds = f"It holds: {', '.join(entries[:10])}{', ...' if len(entries) > 10 else ''}."
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, datasets.exceptions.DatasetGenerationError):  # which says nothing
            reason = reason_of(error)
        raise DataError(f"data.dataset={folder}: {reason}. {holds} {wanted}") from error
