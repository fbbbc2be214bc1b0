"""Whatever bytes, labels and texts come: they are read as they stand, or refused in words."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from data_samples import encoded, make_recipe, photo, private_cache, rotated_by_exif  # noqa: F401
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_samples import tokenizer
from PIL import Image

from hf_finetune.console import inert
from hf_finetune.data import checks, decode_image, long_texts, tokens
from hf_finetune.data.label_columns import encode_labels, find_label_space, read_labels
from hf_finetune.data.labels import is_missing
from hf_finetune.data.shown import shown
from hf_finetune.data.sources import open_source
from hf_finetune.errors import DataError

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
MANY = settings(FEW, max_examples=80)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def opened(path):
    return open_source(make_recipe(str(path)).data)["train"]


@FEW
@given(
    st.lists(st.tuples(TEXTS, st.sampled_from(["yes", "no", "a,b", 'q"q', "l\nl"])), min_size=1, max_size=8),
    st.booleans(),
)
def test_a_written_csv_is_read_as_it_was_written(tmp_path_factory, rows, quoted):
    rows = [("plain words", "yes"), *rows]
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    writer.writerows([("text", "label"), *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(text.getvalue().encode())
    assert [(row["text"], row["label"]) for row in opened(path)] == rows


@MANY
@given(
    st.sampled_from([b"", b"text,label\n", b"text;label\n", b"\xff\xfe", b"\xef\xbb\xbftext,label\n"]),
    st.binary(max_size=200),
)
def test_any_bytes_are_a_table_or_refused(tmp_path_factory, start, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(start + content)
    try:
        table = opened(path)
        table[:]
    except DataError as error:
        assert str(path) in str(error) and len(str(error)) < 3000


LABELS = st.one_of(
    st.lists(st.one_of(st.none(), TEXTS)),
    st.lists(st.one_of(st.none(), st.integers(-(2**40), 2**40))),
    st.lists(st.one_of(st.none(), st.floats())),
    st.lists(st.one_of(st.none(), st.booleans())),
    st.lists(st.one_of(st.none(), st.lists(TEXTS, max_size=3))),
)


@MANY
@given(LABELS)
def test_labels_are_encoded_so_that_they_can_be_read_back_or_refused(values):
    split = Dataset.from_dict({"label": values})
    try:
        raw = read_labels(split, "label")
        space = find_label_space(raw, "label", None)
        targets, reasons, unknown = encode_labels(raw, space)
    except DataError as error:
        assert len(str(error)) < 2000
        return
    assert not unknown
    for row, value in enumerate(values):
        assert (targets[row] is None) is (row in reasons)
        if targets[row] is None or space.problem_type == "regression":
            continue
        found = space.decode(targets[row])
        wanted = sorted({item.strip() for item in value}) if isinstance(value, list) else str(value).strip()
        if isinstance(value, bool):
            wanted = wanted.lower()
        if not (isinstance(value, list) and space.multi_hot):
            assert (sorted(found) if isinstance(found, list) else found) == wanted
    assert all(row in reasons for row, value in enumerate(values) if not isinstance(value, list) and is_missing(value))


WHOLE = {
    "png": encoded(photo(1)),
    "jpeg": encoded(photo(2), "JPEG"),
    "turned": rotated_by_exif(photo(3)),
    "gif": encoded(photo(4), "GIF"),
    "webp": encoded(photo(5), "WEBP"),
    "tiff": encoded(photo(6), "TIFF", compression="tiff_lzw"),
    "bmp": encoded(photo(7), "BMP"),
    "palette": encoded(photo(8).convert("P"), transparency=1),
}


@pytest.mark.parametrize("kind", WHOLE)
@settings(FEW, max_examples=25)
@given(data=st.data())
def test_a_damaged_image_is_decoded_or_told(kind, data):
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, min(len(content), 600) - 1))
        content[place] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    value = {"bytes": bytes(content), "path": None}
    reason, digest, *_ = checks._inspect_image(value)
    if reason is None:
        assert digest and decode_image(value).mode == "RGB"
    else:
        assert inert(reason) == reason and len(reason) < 500


@FEW
@given(st.lists(st.sampled_from(["w3", "w4 w5", "xyz", "\n", "w6 " * 40]), max_size=300), st.integers(4, 12))
def test_a_text_that_is_cut_before_it_is_tokenized_gives_the_same_tokens(words, limit):
    split = Dataset.from_dict({"text": [" ".join(["w3", *words]), "w7"]})
    whole, cut = tokenizer(), tokenizer()
    long, long_texts._LONG = long_texts._LONG, 1 << 30
    try:
        expected = tokens.tokenize(split, whole, limit)
        long_texts._LONG = 1
        found = tokens.tokenize(split, cut, limit)
    finally:
        long_texts._LONG = long
    assert np.array_equal(expected.ids, found.ids) and np.array_equal(expected.windows, found.windows)


def test_long_texts_are_tokenized_in_smaller_chunks_to_the_same_tokens(monkeypatch):
    split = Dataset.from_dict({"text": [f"w{3 + n} " * (1 + n * 7 % 30) for n in range(40)]})
    expected = tokens.tokenize(split, tokenizer(), None)
    monkeypatch.setattr(tokens, "_CHARACTERS", 50)
    assert len(list(tokens._chunks(split))) > 10
    found = tokens.tokenize(split, tokenizer(), None)
    assert np.array_equal(expected.ids, found.ids) and np.array_equal(expected.texts, found.texts)


@MANY
@given(st.text(max_size=200))
def test_what_is_shown_is_one_short_line_that_no_terminal_obeys(text):
    line = shown(text)
    assert line.isprintable() and len(line) < 1000
    assert inert(inert(text)) == inert(text)
    inert(text).encode()


def test_deep_images_are_scaled_strip_by_strip_as_in_one_piece(monkeypatch):
    from hf_finetune.data import images

    values = np.random.default_rng(0).integers(0, 60_000, (50, 31)).astype(np.uint16)
    for stored in (Image.fromarray(values), Image.fromarray(values.astype(np.float32) / 65_535)):
        whole = decode_image(encoded(stored, "TIFF"))
        monkeypatch.setattr(images, "_STRIP", 64)
        assert decode_image(encoded(stored, "TIFF")).tobytes() == whole.tobytes()
        monkeypatch.undo()


def test_a_pipe_is_no_image_and_nobody_waits_for_it(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="not a regular file"):
        decode_image(Path(tmp_path / "pipe.png"))
