"""Texts as the model takes them: the checkpoint's own tokenizer, once, and batches padded as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset

from hf_finetune.data.augment_text import TextAugmentation
from hf_finetune.data.epoch import Epoch
from hf_finetune.data.image_samples import label_tensor
from hf_finetune.data.tokens import Tokens, tokenize
from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import TextAugment

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import ProblemType

TEXT_OF_WINDOW = "text_of_window"  # a batch's key beside those of the model
_NO_LIMIT = 1_000_000  # tokenizers without a limit of their own say 10**30


def text_samples(
    split: Dataset,
    tokenizer: Any,
    *,
    max_length: int | None = None,
    window_overlap: float | None = None,
    augment: TextAugment | None = None,
    seed: int = 0,
    problem_type: ProblemType | None = None,
) -> TextSamples:
    """A torch data set of {"input_ids", "attention_mask", perhaps "token_type_ids", "labels"} in the split's order.

    With `window_overlap` a text that is longer than `max_length` is {"windows": [...], "labels"}, each window a
    dictionary as above.

    Args:
        split: columns text, perhaps text_pair, perhaps label; id where there is `augment`.
        tokenizer: a tokenizer of transformers.
        max_length: tokens kept of a text (of a pair: the longer text is cut first); the tokenizer's limit if None.
        window_overlap: read a longer text in windows of `max_length` that share this part of their words with the one
            before; None cuts it.
        augment: how training texts are changed.
        seed: with the epoch and the row's id it decides a change.
        problem_type: of the labels; class indices are int64, all others float32.

    Raises:
        UserError: `max_length` is more than the model takes, or the tokenizer cannot make windows.
    """
    tokens = tokenize(split.with_format(None), tokenizer, limit_of(tokenizer, max_length), window_overlap)
    labels: list[Any] | None = split["label"][:] if "label" in split.column_names else None
    if labels is not None and problem_type == "regression":
        labels = [float(label) if isinstance(label, int) else label for label in labels]
    if augment is None:
        return TextSamples(tokens, labels)
    return TextSamples(tokens, labels, TextAugmentation(augment, tokenizer, seed), split["id"][:])


def limit_of(tokenizer: Any, max_length: int | None) -> int | None:
    """Tokens of a text or window at most: `max_length`, else what the checkpoint takes; None for no limit.

    Raises:
        UserError: `max_length` is more than the checkpoint takes.
    """
    limit = tokenizer.model_max_length if tokenizer.model_max_length < _NO_LIMIT else None
    if max_length and limit and max_length > limit:
        raise UserError(f"data.max_length={max_length}: the checkpoint takes {limit} tokens at most.")
    return max_length or limit


class TextSamples(torch.utils.data.Dataset[dict[str, Any]]):
    """See `text_samples`."""

    def __init__(
        self,
        tokens: Tokens,
        labels: list[Any] | None,
        augmentation: TextAugmentation | None = None,
        ids: list[int] | None = None,
    ) -> None:
        self.tokens = tokens
        self.labels = labels
        self.augmentation = augmentation
        self.ids = ids
        self._epoch = Epoch()

    def set_epoch(self, epoch: int) -> None:
        """Choose the changes of this epoch."""
        self._epoch.set(epoch)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, all its windows together, shape (samples,)."""
        return self.tokens.lengths

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        windows = self.tokens[index]
        if self.augmentation is not None and self.ids is not None:
            windows = self.augmentation(windows, int(self._epoch), self.ids[index])
        sample: dict[str, Any] = dict(windows[0]) if len(windows) == 1 else {"windows": windows}
        if self.labels is not None:
            sample["labels"] = label_tensor(self.labels[index])
        return sample


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
        """input_ids, attention_mask, perhaps token_type_ids: (windows, length); labels: (batch,) or (batch, labels).

        Where a text has several windows, `text_of_window` (windows,) says which text of the batch each belongs to.
        """
        texts = [sample.get("windows") or [{k: v for k, v in sample.items() if k != "labels"}] for sample in samples]
        windows = [window for text in texts for window in text]
        longest = max(len(window["input_ids"]) for window in windows)
        width = max(longest, min(-(-longest // 8) * 8, self.tokenizer.model_max_length))
        batch = dict(self._pad(windows, width))
        if len(windows) > len(texts):
            batch[TEXT_OF_WINDOW] = torch.tensor([place for place, text in enumerate(texts) for _ in text])
        if "labels" in samples[0]:
            batch["labels"] = torch.stack([sample["labels"] for sample in samples])
        return batch

    def _pad(self, texts: Sequence[dict[str, Any]], width: int) -> Any:
        # `pad` advises a fast tokenizer's __call__, which would tokenize again.
        self.tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
        return self.tokenizer.pad(texts, padding="max_length", max_length=width, return_tensors="pt")
