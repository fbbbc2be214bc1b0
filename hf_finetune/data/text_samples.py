"""Texts as the model takes them: the checkpoint's own tokenizer, once, and batches padded as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset

from hf_finetune.data.image_samples import label_tensor
from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import ProblemType

_CHUNK = 4096  # texts tokenized at once
_NO_LIMIT = 1_000_000  # tokenizers without a limit of their own say 10**30


def text_samples(
    split: Dataset, tokenizer: Any, *, max_length: int | None = None, problem_type: ProblemType | None = None
) -> TextSamples:
    """A torch data set of {"input_ids", "attention_mask", perhaps "token_type_ids", "labels"} in the split's order.

    Args:
        split: columns text, perhaps text_pair, perhaps label.
        tokenizer: a tokenizer of transformers.
        max_length: tokens kept of a text (of a pair: the longer text is cut first); the tokenizer's limit if None.
        problem_type: of the labels; class indices are int64, all others float32.

    Raises:
        UserError: `max_length` is more than the model takes.
    """
    return TextSamples(split, tokenizer, max_length, problem_type)


class TextSamples(torch.utils.data.Dataset[dict[str, Any]]):
    """See `text_samples`. Tokens are kept flat, 4 bytes each, so that millions of texts fit in memory."""

    def __init__(
        self, split: Dataset, tokenizer: Any, max_length: int | None, problem_type: ProblemType | None
    ) -> None:
        limit = tokenizer.model_max_length if tokenizer.model_max_length < _NO_LIMIT else None
        if max_length and limit and max_length > limit:
            raise UserError(f"data.max_length={max_length}: the checkpoint takes {limit} tokens at most.")
        self.tokens, self.types, self.starts = _tokenize(split.with_format(None), tokenizer, max_length or limit)
        self.labels: list[Any] | None = split["label"][:] if "label" in split.column_names else None
        if self.labels is not None and problem_type == "regression":
            self.labels = [float(label) if isinstance(label, int) else label for label in self.labels]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, shape (samples,)."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        part = slice(self.starts[index], self.starts[index + 1])
        tokens = self.tokens[part].tolist()
        sample: dict[str, Any] = {"input_ids": tokens, "attention_mask": [1] * len(tokens)}
        if self.types is not None:
            sample["token_type_ids"] = self.types[part].tolist()
        if self.labels is not None:
            sample["labels"] = label_tensor(self.labels[index])
        return sample


def _tokenize(split: Dataset, tokenizer: Any, limit: int | None) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """All tokens in a row, their token types (None where the tokenizer gives none), and where each text starts."""
    tokens: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths: list[int] = []
    for rows in split.iter(batch_size=_CHUNK):
        encoded = tokenizer(rows["text"], rows.get("text_pair"), truncation=limit is not None, max_length=limit)
        lengths += [len(ids) for ids in encoded["input_ids"]]
        tokens += [np.concatenate(encoded["input_ids"]).astype(np.int32)]
        if "token_type_ids" in encoded:
            types += [np.concatenate(encoded["token_type_ids"]).astype(np.int8)]
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return np.concatenate(tokens), np.concatenate(types) if types else None, starts


class TextCollator:
    """Pads a batch to its longest text, rounded up to a multiple of 8 (for tensor cores) within the limit.

    Args:
        tokenizer: a tokenizer with a padding token.

    Raises:
        UserError: the tokenizer has no padding token.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.pad_token_id is None:
            raise UserError(
                f"The tokenizer {tokenizer.name_or_path or type(tokenizer).__name__} has no padding token, so texts of "
                "different lengths cannot be one batch. Set tokenizer.pad_token (and the model's config.pad_token_id)."
            )
        self.tokenizer = tokenizer

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask, perhaps token_type_ids: (batch, length); labels: (batch,) or (batch, labels)."""
        texts = [{name: value for name, value in sample.items() if name != "labels"} for sample in samples]
        longest = max(len(sample["input_ids"]) for sample in samples)
        width = max(longest, min(-(-longest // 8) * 8, self.tokenizer.model_max_length))
        batch = dict(self._pad(texts, width))
        if "labels" in samples[0]:
            batch["labels"] = torch.stack([sample["labels"] for sample in samples])
        return batch

    def _pad(self, texts: Sequence[dict[str, Any]], width: int) -> Any:
        # `pad` advises a fast tokenizer's __call__, which would tokenize again.
        self.tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
        return self.tokenizer.pad(texts, padding="max_length", max_length=width, return_tensors="pt")
