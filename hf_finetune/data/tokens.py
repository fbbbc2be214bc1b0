"""Every text of a split as tokens: cut at the model's length, or in overlapping windows of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from hf_finetune.data.long_texts import shortener
from hf_finetune.data.shown import shown
from hf_finetune.errors import UserError

_CHUNK = 4096  # texts tokenized at once
_CHARACTERS = 4 << 20  # of texts tokenized at once
_NAMED = 10  # rows that an error names
_MOST_WINDOWS = 1000  # of a text


class Tokens:
    """Texts as windows of tokens, kept flat, 4 bytes a token, so that millions of texts fit in memory.

    Args:
        ids: token ids of all windows in a row, int32.
        types: their token types, int8; None where the tokenizer gives none.
        windows: where each window starts in `ids`, and the end, (windows + 1,).
        texts: where each text starts in `windows`, and the end, (texts + 1,).
    """

    def __init__(self, ids: np.ndarray, types: np.ndarray | None, windows: np.ndarray, texts: np.ndarray) -> None:
        self.ids = ids
        self.types = types
        self.windows = windows
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, shape (texts,)."""
        return np.diff(self.windows[self.texts])

    def __getitem__(self, text: int) -> list[dict[str, list[int]]]:
        """The windows of a text as the model takes them: input_ids, attention_mask, perhaps token_type_ids."""
        return [self._window(place) for place in range(self.texts[text], self.texts[text + 1])]

    def _window(self, place: int) -> dict[str, list[int]]:
        part = slice(self.windows[place], self.windows[place + 1])
        ids = self.ids[part].tolist()
        window = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        if self.types is not None:
            window["token_type_ids"] = self.types[part].tolist()
        return window


def tokenize(split: Dataset, tokenizer: Any, limit: int | None, window_overlap: float | None = None) -> Tokens:
    """Tokens of the columns text and, perhaps, text_pair.

    Args:
        split: the texts.
        tokenizer: a tokenizer of transformers.
        limit: most tokens of a window, special ones included; None for no limit.
        window_overlap: share of a window's words that the one before holds too; None cuts at the first window.

    Raises:
        UserError: the tokenizer cannot make windows, or no token of a text, or too many windows of one.
    """
    options: dict[str, Any] = {"truncation": limit is not None, "max_length": limit}
    if window_overlap is not None:
        if "text_pair" in split.column_names:
            raise UserError("data.long_text=windows cuts one text, and these are pairs: use data.long_text=truncate.")
        options |= _window_options(tokenizer, limit, window_overlap)
    shorten = shortener(tokenizer, limit) if limit is not None and window_overlap is None else None
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths: list[int] = []
    counts: list[int] = []
    kept = tokenizer.backend_tokenizer.truncation if window_overlap is not None else None
    for rows in _chunks(split):
        if shorten is not None:
            rows = {role: list(map(shorten, texts)) if role != "id" else texts for role, texts in rows.items()}
        encoded = tokenizer(rows["text"], rows.get("text_pair"), **options)
        lengths += [len(window) for window in encoded["input_ids"]]
        ids += [np.concatenate(encoded["input_ids"]).astype(np.int32)]
        if "token_type_ids" in encoded:
            types += [np.concatenate(encoded["token_type_ids"]).astype(np.int8)]
        owners = encoded.get("overflow_to_sample_mapping", range(len(rows["text"])))
        empty = [owner for owner, window in zip(owners, encoded["input_ids"], strict=True) if not window]
        _refuse_nothing(empty, rows, tokenizer)
        windows = np.bincount(owners, minlength=len(rows["text"]))
        _refuse_many(windows, rows, limit)
        counts += windows.tolist()
    if window_overlap is not None:
        _set_truncation(tokenizer.backend_tokenizer, kept)
    starts = [np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]) for sizes in (lengths, counts)]
    return Tokens(np.concatenate(ids), np.concatenate(types) if types else None, *starts)


def _chunks(split: Dataset) -> Iterator[dict[str, list[Any]]]:
    """The rows by many, with fewer at once where texts are long: a tokenizer takes hundreds of bytes a character."""
    columns = [name for name in ("id", "text", "text_pair") if name in split.column_names]
    for rows in split.select_columns(columns).iter(batch_size=_CHUNK):
        sizes = np.cumsum([len(text) for text in rows["text"]])
        ends = [*np.flatnonzero(np.diff(sizes // _CHARACTERS)), len(sizes) - 1]
        start = 0
        for end in ends:
            yield {name: values[start : end + 1] for name, values in rows.items()}
            start = int(end) + 1


def _refuse_nothing(empty: Sequence[int], rows: Mapping[str, Sequence[Any]], tokenizer: Any) -> None:
    """Stop at texts of which nothing is left: a model cannot read no token at all."""
    if not empty:
        return
    numbers = rows.get("id", range(len(rows["text"])))
    told = [f"{numbers[place]} ('{shown(rows['text'][place])}')" for place in empty[:_NAMED]]
    raise UserError(
        f"The tokenizer {tokenizer.name_or_path or type(tokenizer).__name__} makes no token of the text of row "
        f"{', '.join(told)}{', ...' if len(empty) > _NAMED else ''} (counted from 0): take these rows out."
    )


def _refuse_many(windows: np.ndarray, rows: Mapping[str, Sequence[Any]], limit: int | None) -> None:
    """Stop at a text of so many windows that no memory holds the step in which they are read together."""
    places = np.flatnonzero(windows > _MOST_WINDOWS).tolist()
    if not places or "id" not in rows:  # texts that are only to be answered, one after the other
        return
    told = [f"{rows['id'][place]} ({windows[place]:,} windows)" for place in places[:_NAMED]]
    more = ", ..." if len(places) > _NAMED else ""
    raise UserError(
        f"data.long_text=windows: a text is read in {_MOST_WINDOWS:,} windows of {limit} tokens at most, and there are "
        f"more in row {', '.join(told)}{more} (counted from 0). Divide these texts, or take them out; "
        "data.long_text=truncate reads the beginning of each."
    )


def _window_options(tokenizer: Any, limit: int | None, overlap: float) -> dict[str, Any]:
    if limit is None:
        raise UserError("data.long_text=windows: the checkpoint names no limit; say data.max_length for a window's.")
    if not tokenizer.is_fast:
        raise UserError(
            f"data.long_text=windows: {type(tokenizer).__name__} cannot cut windows, which needs a fast tokenizer "
            "(one of the tokenizers library). Use data.long_text=truncate."
        )
    words = limit - tokenizer.num_special_tokens_to_add()
    if words < 2:
        raise UserError(f"data.max_length={limit} leaves a window {max(words, 0)} words beside the special tokens.")
    return {"stride": min(round(overlap * words), words - 1), "return_overflowing_tokens": True}


def _set_truncation(backend: Any, setting: dict[str, Any] | None) -> None:
    """What a fast tokenizer was told last goes into its tokenizer.json; windows do not belong there."""
    if setting is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(**setting)
