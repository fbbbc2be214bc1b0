"""JSON that pyarrow does not survive is refused under every name, and JSON that it does is not."""

import gzip
import io
import json

import datasets
import pytest
from data_samples import make_recipe
from pyarrow import json as pyarrow_json

from hf_finetune.data.guarded import guarded
from hf_finetune.data.json_nesting import DEEPEST, needs_one_block, safe_json
from hf_finetune.data.sources import open_source
from hf_finetune.errors import DataError

ROWS = [{"text": f"a {n} [[{{", "label": n % 2} for n in range(20)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
DEEP = b'{"text": ' + (b"[" * 9 + b"\n") * 90 + b"]" * 810 + b', "label": 0}\n'  # a few on every line


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        b"]" * 2000 + b"\n" + DEEP,  # of another block
        b'{"text": "\n' + DEEP,  # a text ends with its line
        b'{"a": "\\\\"}\n' + DEEP,
        b'{"a": "\\""}\n' + DEEP,
        LINES + DEEP,
        b"null\n" + LINES,
        b"\xef\xbb\xbf \n null " + LINES,
        LINES + b"null\n" + LINES,  # where another block begins
        b"[null]\rnull\r",
    ],
)
def test_what_pyarrow_does_not_survive(text):
    with pytest.raises(DataError, match=r"too deep|is null"):
        needs_one_block(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        LINES,
        json.dumps(ROWS, indent=1).encode(),
        b'{"a": ' + b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1) + b"}\n",
        json.dumps({"a": "[" * 9999 + '"\\"' + "{" * 9999}).encode(),
        b'{"a": null, "b": "null\\nnull"}\n' * 9,
    ],
)
def test_what_pyarrow_survives(text):
    assert needs_one_block(text) is False


def test_a_null_inside_a_value_is_no_row():
    """Over many lines, as people write json; it is read in one block, in which it is not the first row."""
    text = json.dumps({"text": [1, *[None] * 9000], "label": 1}, indent=1).encode()
    assert needs_one_block(text)
    with safe_json():
        options = pyarrow_json.ReadOptions(block_size=1024)
        assert pyarrow_json.read_json(io.BytesIO(text), read_options=options).to_pylist()[0]["label"] == 1


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", DEEP), ("a.ndjson", DEEP), ("a.ndjson", b"null\n"), ("a.jsonl.gz", LINES + b"null\n")]
)
def test_files_of_every_name_in_a_folder(tmp_path, name, text):
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / name
    file.write_bytes(gzip.compress(LINES) if name.endswith("gz") else LINES)
    data = make_recipe(str(tmp_path / "data"), "text-classification").data
    assert len(open_source(data)["train"]) == 20
    file.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    with pytest.raises(DataError, match=f"{name} cannot be read as json: .*(too deep|null)"):
        open_source(data)


def test_what_a_card_makes_of_a_file_is_looked_at(tmp_path):
    """In another encoding neither brackets nor nulls look like themselves; that of the card makes them so."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.json").write_bytes((LINES + b"null\n" + LINES).decode().encode("cp037"))
    card = "configs:\n- config_name: default\n  data_files: a.json\n  encoding: cp037\n"
    (tmp_path / "data" / "README.md").write_text(f"---\n{card}---\n")
    with guarded(tmp_path / "data"), pytest.raises((DataError, datasets.exceptions.DatasetGenerationError)) as error:
        datasets.load_dataset(str(tmp_path / "data"))
    assert "is null" in f"{error.value} {error.value.__cause__}"
