"""Data sets of strangers: a folder or a file, given to `train`; the fault is found before the model is looked for."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from faults.hostile import CANARY, Case, Runs, payload
from faults.hostile_archives import (
    MEGABYTE,
    ROWS,
    packed_zeros,
    seven,
    sparse_tar,
    tar_traversal,
    zip_bomb,
    zip_traversal,
)
from faults.listening import listening

_LISTENING: list[object] = []  # what must not be tidied away


def train(make_data: Callable[[Path], None], where: str = "data", task: str = "text-classification"):
    """`hf-finetune train` on what `make_data` puts into the folder `data`."""

    def make(folder: Path) -> list[str]:
        (folder / "data").mkdir()
        make_data(folder / "data")
        recipe = f"task: {task}\nmodel: {{checkpoint: nowhere/at-all}}\ndata: {{dataset: {where}}}\noutput_dir: out\n"
        (folder / "mine.yaml").write_text(recipe)
        return ["train", "recipe=mine.yaml"]

    return make


def _script(data: Path) -> None:
    (data / "data.py").write_text(f"import datasets\n{payload(data.parent)}\n")
    (data / "rows.csv").write_text(ROWS)


def _script_alone(data: Path) -> None:
    (data / "data.py").write_text(f"import datasets\n{payload(data.parent)}\n")


def _pickles(data: Path) -> None:
    for name in ("train.pkl", "train.pickle", "rows.pt"):
        (data / name).write_bytes(pickle.dumps(Runs(data.parent)))


def _webdataset(data: Path) -> None:
    with tarfile.open(data / "train-0000.tar", "w") as tar:
        for name in ("0.pyd", "0.pickle", "0.pth", "0.txt"):
            content = pickle.dumps(Runs(data.parent))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _many_rows(data: Path) -> None:
    """A value and how often it stands: 20 million rows in some kilobytes."""
    zeros = pa.array(np.zeros(20_000_000, np.int8))
    pq.write_table(pa.table({"text": zeros, "label": zeros}), data / "train.parquet", compression="zstd")


def _one_value(data: Path) -> None:
    """One text of a megabyte, which 40,000 rows have: 40 GB in memory."""
    texts = pa.DictionaryArray.from_arrays(np.zeros(40_000, np.int32), pa.array(["x" * MEGABYTE]))
    table = pa.table({"text": texts, "label": pa.array(np.arange(40_000) % 2)})
    pq.write_table(table, data / "train.parquet", dictionary_pagesize_limit=2**30, store_schema=False)


def _one_image(data: Path) -> None:
    """The same of images, which lie one level deeper."""
    content = pa.DictionaryArray.from_arrays(np.zeros(40_000, np.int32), pa.array([b"x" * MEGABYTE]))
    image = pa.StructArray.from_arrays([content, pa.nulls(40_000, pa.string())], ["bytes", "path"])
    table = pa.table({"image": image, "label": pa.array(np.arange(40_000) % 2)})
    pq.write_table(table, data / "train.parquet", dictionary_pagesize_limit=2**30, store_schema=False)


def _packed_arrow(data: Path) -> None:
    """Two gigabytes of zeros in a hundred kilobytes."""
    zeros = pa.record_batch([pa.array(np.zeros(20_000_000, np.int8))], ["label"])
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(str(data / "train.arrow"), zeros.schema, options=options) as writer:
        for _ in range(100):
            writer.write_batch(zeros)


def _torn_parquet(data: Path) -> None:
    (data / "train.parquet").write_bytes(b"PAR1" + b"\xff" * 2000 + b"\xff\xff\xff\x7fPAR1")


def _saved(filename: str) -> Callable[[Path], None]:
    def make(data: Path) -> None:
        import datasets

        datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).save_to_disk(str(data))
        state = json.loads((data / "state.json").read_text())
        (data / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": filename}]}))

    return make


def _saved_with_lies(data: Path) -> None:
    """The second text ends two gigabytes behind the file."""
    import datasets

    datasets.Dataset.from_dict({"text": ["abcd", "efgh"], "label": [0, 1]}).save_to_disk(str(data))
    (table,) = data.glob("*.arrow")
    lies = table.read_bytes().replace(np.int32([0, 4, 8]).tobytes(), np.int32([0, 4, 2 * 10**9]).tobytes())
    table.write_bytes(lies)


def _table(name: str, content: str | bytes) -> Callable[[Path], None]:
    def make(data: Path) -> None:
        (data / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def _readme(where: str) -> Callable[[Path], None]:
    """A card whose metadata name another file as the data."""

    def make(data: Path) -> None:
        (data.parent / "secret.csv").write_text(ROWS)
        place = where.format(folder=data.parent)
        (data / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {place}\n---\n")
        (data / "rows.csv").write_text(ROWS)

    return make


def _readme_of_a_service(data: Path) -> None:
    """Of an address that takes it for an order to be asked; it listens as long as the process is there."""
    service = listening((data.parent / CANARY).touch)
    place, _ = service.__enter__()
    _LISTENING.append(service)
    _readme(f"{place}/secret.csv")(data)


def _reference(data: Path) -> None:
    """A file that says where to read, which a file system of fsspec follows."""
    (data / "ref.txt").write_text(json.dumps({"train.csv": [f"file://{data.parent}/secret.csv"]}))
    _readme("reference://train.csv::{folder}/data/ref.txt")(data)


def _pipe(data: Path) -> None:
    os.mkfifo(data / "pipe.png")
    (data / "rows.csv").write_text("image,label\n" + "".join(f"pipe.png,{n % 2}\n" for n in range(20)))


def _pickled_array(data: Path) -> None:
    kept = io.BytesIO()
    np.save(kept, np.array([Runs(data.parent)], dtype=object), allow_pickle=True)
    rows = {"image": [{"bytes": kept.getvalue(), "path": "a.npy"}] * 20, "label": [0, 1] * 10}
    pq.write_table(pa.table(rows), data / "train.parquet")


def _postscript(data: Path) -> None:
    """Pillow hands these to Ghostscript."""
    program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({data.parent / CANARY}) (w) file closefile\n%%EOF\n"
    for place, name in enumerate("ab"):
        (data / name).mkdir()
        for n in range(10):
            (data / name / f"{place}{n}.png").write_text(program)


_REFUSED = ("and becomes",)
_DEEP = '{"a":' + ("[" * 400 + "\n") * 390 + "]" * 156_000 + "}\n"
_CASES = [
    ("a loading script", train(_script), ("cript",), None),
    ("a loading script alone", train(_script_alone), ("cript", "data files")),
    ("pickles", train(_pickles), ("data.dataset",)),
    ("a webdataset with pickles", train(_webdataset), ("data",)),
    ("a zip of a terabyte", train(zip_bomb), _REFUSED),
    ("a zip whose files lie further up", train(zip_traversal), (), None),
    ("a tar whose files lie further up", train(tar_traversal), (), None),
    ("a tar whose file is a hole of 8 GB", train(sparse_tar), _REFUSED),
    ("a csv.gz of 2 GB", train(packed_zeros("rows.csv.gz", ROWS.encode(), 150), "data/rows.csv.gz"), _REFUSED),
    ("a jsonl.gz of 2 GB", train(packed_zeros("rows.jsonl.gz", b'{"text": "a', 150), "data/rows.jsonl.gz"), _REFUSED),
    ("a folder with a csv.gz of 2 GB", train(packed_zeros("rows.csv.gz", ROWS.encode(), 150)), _REFUSED),
    ("an archive that cannot be measured", train(seven), ("unpack", "data")),
    ("20 million rows in kilobytes", train(_many_rows, "data/train.parquet"), _REFUSED),
    ("20 million rows in a folder", train(_many_rows), _REFUSED),
    ("a text that 40,000 rows have", train(_one_value, "data/train.parquet"), _REFUSED),
    ("an image that 40,000 rows have", train(_one_image, task="image-classification"), _REFUSED),
    ("a packed table of Arrow", train(_packed_arrow), _REFUSED),
    ("a parquet whose end is anything", train(_torn_parquet, "data/train.parquet"), ("cannot be read",)),
    ("a saved data set whose table lies further up", train(_saved("../../x.arrow")), ("no file beside it",)),
    ("a saved data set whose table is /etc/passwd", train(_saved("/etc/passwd")), ("no file beside it",)),
    ("a saved data set whose texts lie elsewhere", train(_saved_with_lies), ("is damaged",)),
    ("a card that names a file further up", train(_readme("../secret.csv")), ("outside of",)),
    ("a card that names a file of this machine", train(_readme("{folder}/secret.csv")), ("outside of",)),
    ("a card that names an address", train(_readme_of_a_service), ("outside of",)),
    ("a card whose file says where to read", train(_reference), ("outside of",)),
    ("JSON nested 100,000 deep", train(_table("rows.json", '{"a":' * 100_000), "data/rows.json"), ("cannot be read",)),
    ("JSON nested 156,000 deep over 390 lines", train(_table("rows.ndjson", _DEEP)), ("too deep",)),
    ("JSON whose first row is null", train(_table("rows.ndjson", "null\n")), ("is null", "begins with")),
    ("an image that is a pipe", train(_pipe, "data/rows.csv", "image-classification"), ("not a regular file",)),
    ("an array of objects", train(_pickled_array, "data/train.parquet, image: image", "image-classification"),
     ("cannot be", "unknown", "identify")),
    ("PostScript called png", train(_postscript, task="image-classification"), ("cannot", "identify")),
]  # fmt: skip

DATA = [Case(f"data: {name}", make, words, *code) for name, make, words, *code in _CASES]
