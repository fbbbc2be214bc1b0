"""Folders of images that are laid out oddly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .bad_case import IMAGE, Corpus, Given
from .bad_samples import class_folders, picture

CORPUS = Corpus("folders", IMAGE)
_TWO = "2 classes: ants, bees"


def _given(folder: Path, **data: Any) -> Given:
    return {"dataset": str(folder), "test_split": None, **data}


@CORPUS(says=f"1 class folders without an image, which are no classes: 'wasps'.*{_TWO}")
def _a_class_folder_without_images(folder: Path) -> Given:
    (class_folders(folder) / "wasps").mkdir()
    return _given(folder)


@CORPUS(says=f"3 files in the class folders .* are left out .*16 do.*{_TWO}")
def _class_folders_with_other_files(folder: Path) -> Given:
    class_folders(folder)
    for name in ("Thumbs.db", "notes.txt", "README"):
        (folder / "ants" / name).write_text("not an image")
    (folder / "ants" / ".DS_Store").write_text("hidden")
    return _given(folder)


@CORPUS(says=_TWO)
def _class_folders_nested(folder: Path) -> Given:
    class_folders(folder)
    deep = folder / "ants" / "/".join(f"level{n}" for n in range(30))
    deep.mkdir(parents=True)
    picture(90).save(deep / "deep.png")
    return _given(folder)


@CORPUS(says=_TWO)
def _file_names_with_odd_characters(folder: Path) -> Given:
    class_folders(folder)
    for place, name in enumerate(
        ("a b", "-rf", "%20", "quote'\"", "new\nline", "\U0001f41c", "e\u0301", "$(id)", "#?&", "*")
    ):
        picture(200 + place).save(folder / "ants" / f"{name}.png")
    return _given(folder)


@CORPUS(refused=r"1 of 17 rows cannot be used.*new\\nline\\x1b\[2J.png\): the image cannot be decoded")
def _a_broken_image_whose_name_is_obeyed(folder: Path) -> Given:
    class_folders(folder)
    (folder / "ants" / "new\nline\x1b[2J.png").write_bytes(b"no image")
    return _given(folder)


@CORPUS(refused=r"the names of 1 files are not UTF-8.*caf.*rename them")
def _a_file_name_in_latin1(folder: Path) -> Given:
    class_folders(folder)
    os.rename(folder / "ants" / "0.png", os.fsencode(folder) + b"/ants/caf\xe9.png")  # noqa: PTH104 (bytes)
    return _given(folder)


@CORPUS(says="2 classes: .*, bees|2 classes: bees, ")
def _class_names_with_odd_characters(folder: Path) -> Given:
    return _given(class_folders(folder, ("bees", "\U0001f41c <b>ants</b> & 'co'\u202e")))


@CORPUS(refused=r"gone.png\): the image cannot be decoded: No such file")
def _a_broken_link(folder: Path) -> Given:
    (class_folders(folder) / "ants" / "gone.png").symlink_to("/no/such/file.png")
    return _given(folder)


@CORPUS(refused=r"self.png\): .*(symbolic links|cannot be decoded)")
def _a_link_to_itself(folder: Path) -> Given:
    (class_folders(folder) / "ants" / "self.png").symlink_to("self.png")
    return _given(folder)


@CORPUS(says=_TWO)
def _a_class_folder_that_links_back(folder: Path) -> Given:
    (class_folders(folder) / "loop").symlink_to(".")
    return _given(folder)


@CORPUS(says=_TWO)
def _class_folders_that_are_links(folder: Path) -> Given:
    class_folders(folder / "there")
    (folder / "here").mkdir()
    for name in ("ants", "bees"):
        (folder / "here" / name).symlink_to(folder / "there" / name)
    return _given(folder / "here")


@CORPUS(says=_TWO)
def _file_endings_in_capitals(folder: Path) -> Given:
    class_folders(folder)
    for path in sorted((folder / "ants").iterdir()):
        path.rename(path.with_suffix(".PNG"))
    return _given(folder)


@CORPUS(says=_TWO)
def _hidden_files_and_folders(folder: Path) -> Given:
    class_folders(folder)
    (folder / ".cache").mkdir()
    for place in (folder / ".cache", folder / "ants"):
        (place / ".hidden.png").write_bytes(b"no image")
    return _given(folder)


@CORPUS(says=_TWO)
def _a_folder_called_like_an_image(folder: Path) -> Given:
    (class_folders(folder) / "ants" / "folder.png").mkdir()
    return _given(folder)


@CORPUS(refused="the images lie in no class folders")
def _images_in_no_class_folder(folder: Path) -> Given:
    picture().save(folder / "a.png")
    return _given(folder)


@CORPUS(refused="the folder is empty")
def _an_empty_folder(folder: Path) -> Given:
    return _given(folder)


@CORPUS(refused="Give a folder of class folders")
def _a_folder_of_empty_folders(folder: Path) -> Given:
    for name in ("ants", "bees"):
        (folder / name).mkdir()
    return _given(folder)


@CORPUS(refused="All rows of the train split have the label 'ants'")
def _one_class_folder(folder: Path) -> Given:
    return _given(class_folders(folder, ("ants",)))


@CORPUS(refused=r"17 of 17 rows|1 of 17 rows cannot be used.*photo.heic\): .*HEIC")
def _class_folders_with_heic(folder: Path) -> Given:
    class_folders(folder)
    (folder / "bees" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    return _given(folder)


@CORPUS(refused="split test has labels that the train split has not: 'wasps' .4 rows.")
def _a_class_folder_in_test_alone(folder: Path) -> Given:
    class_folders(folder / "train")
    class_folders(folder / "test", ("ants", "wasps"), each=4)
    return {"dataset": str(folder)}


@CORPUS(says=_TWO)
def _a_class_folder_that_test_lacks(folder: Path) -> Given:
    class_folders(folder / "train")
    class_folders(folder / "test", ("ants",), each=4)
    return {"dataset": str(folder)}


@CORPUS(refused="are train splits or classes. Beside them images lie in ants")
def _split_folders_beside_class_folders(folder: Path) -> Given:
    class_folders(folder / "train")
    class_folders(folder, ("ants",))
    return {"dataset": str(folder)}


@CORPUS(refused="there is no such file or folder")
def _a_folder_that_is_not_there(folder: Path) -> Given:
    return _given(folder / "gone" / "further")


@CORPUS(refused="there is no such file or folder|File name too long")
def _a_folder_whose_name_is_too_long(folder: Path) -> Given:
    return _given(folder / ("x" * 5000))


@CORPUS(refused="Permission denied|no images in class folders|Give a folder")
def _a_folder_that_may_not_be_read(folder: Path) -> Given:
    if os.geteuid() == 0:  # root may read all: a table of processes is what even root cannot list as one of images
        return _given(Path("/proc/self/fdinfo"))
    folder.chmod(0)
    return _given(folder)
