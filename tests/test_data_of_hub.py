"""Data sets of the Hub, over HTTP: ordinary ones are read, and what a card names elsewhere is not asked for."""

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hub_server import LoopbackHub

pytestmark = pytest.mark.long

CSV = b"text,label\n" + b"".join(b"a %d,%d\n" % (n, n % 2) for n in range(20))
JSONL = b"".join(b'{"text": "a %d", "label": %d}\n' % (n, n % 2) for n in range(20))
OPEN = """
import json, sys
from data_samples import make_recipe
from hf_finetune.data.sources import open_source
from hf_finetune.data.stream_sources import open_stream
from hf_finetune.errors import DataError
said = {}
for name in sys.argv[2:]:
    data = make_recipe(name, streaming=sys.argv[1] == "streamed").data
    try:
        if data.streaming:
            said[name] = {split: int(rows.sizes.sum()) for split, rows in open_stream(data).items()}
        else:
            said[name] = {split: len(rows) for split, rows in open_source(data).items()}
    except DataError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


def card(data: str) -> bytes:
    return f"---\nconfigs:\n- config_name: default\n  {data}\n---\n".encode()


def packed() -> bytes:
    with zipfile.ZipFile(kept := io.BytesIO(), "w") as archive:
        archive.writestr("train.csv", CSV)
    return kept.getvalue()


def opened(how: str, good: dict, evil: dict, home: Path) -> dict:
    """What a process of its own makes of these data sets, whose Hub is on loopback; a secret one there is not asked."""
    with LoopbackHub() as hub:
        hub.add("secret/data", {"train.csv": CSV, "train.jsonl": JSONL}, "dataset")
        for name, files in {**good, **evil}.items():
            hub.add(name, {"README.md": b"# Data\n"} | files, "dataset")
        here = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
        ran = subprocess.run(
            [sys.executable, "-c", OPEN, how, *good, *evil],
            env={**os.environ, **here, "HF_FINETUNE_CACHE": str(home / "kept"), "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        assert not hub.asked("GET", "secret/data") + hub.asked("HEAD", "secret/data")
    return json.loads(ran.stdout.splitlines()[-1])


def test_data_sets_of_the_hub(tmp_path):
    good = {
        "them/plain": {"train.csv": CSV, "test.csv": CSV},
        "them/glob": {"README.md": card('data_files: "sub/*.csv"'), "sub/train.csv": CSV, "x.csv": CSV},
        "them/folder": {"README.md": card("data_dir: sub"), "sub/train.csv": CSV, "x.json": b"{}"},
        "them/zip": {"train.zip": packed()},
        "them/gz": {"train.csv.gz": gzip.compress(CSV)},
    }
    evil = {
        "evil/other": {"README.md": card("data_files: hf://datasets/secret/data/train.csv")},
        "evil/up": {"README.md": card("data_files: ../../../secret/data/resolve/main/train.csv")},
        "evil/folder": {"README.md": card("data_dir: /etc"), "train.csv": CSV},
        "evil/ref": {"README.md": card("data_files: reference://a.txt::hf://datasets/evil/ref/ref.txt")},
        "evil/null": {"train.jsonl": b"null\n" + b'{"text": "a", "label": 0}\n' * 9},
    }
    said = opened("read", good, evil, tmp_path)
    assert [said[name].get("train") for name in good] == [20] * len(good)
    for name in evil:
        assert f"data.dataset={name}: " in said[name]
        assert "outside of" in said[name] or "is null" in said[name]


def test_data_sets_of_the_hub_that_are_streamed(tmp_path):
    good = {
        "them/plain": {"train.jsonl": JSONL, "test.jsonl": JSONL},
        "them/glob": {"README.md": card('data_files: "sub/*.jsonl"'), "sub/train.jsonl": JSONL, "x.jsonl": JSONL},
    }
    (tmp_path / "mine.jsonl").write_bytes(JSONL)
    evil = {
        "evil/other": {"README.md": card("data_files: hf://datasets/secret/data/train.jsonl")},
        "evil/up": {"README.md": card("data_files: ../../../secret/data/resolve/main/train.jsonl")},
        "evil/mine": {"README.md": card(f"data_files: {tmp_path}/mine.jsonl")},
        "evil/file": {"README.md": card(f"data_files: file://{tmp_path}/mine.jsonl")},
        "evil/ref": {"README.md": card("data_files: reference://a.jsonl::hf://datasets/evil/ref/ref.txt")},
        "evil/deep": {"train.jsonl": JSONL + b'{"text": ' + b"[" * 200_000 + b"\n"},
    }
    said = opened("streamed", good, evil, tmp_path / "home")
    assert [said[name].get("train") for name in good] == [20] * len(good)
    for name in evil:
        assert ("deep" in name and "a line is no JSON record" in said[name]) or (
            f"data.dataset={name}: " in said[name] and "outside of" in said[name]
        )
