"""Random changes of training texts, on tokens: words or one run of words masked.

Word dropout is Iyyer et al. 2015 (Deep Averaging Networks); a masked run of neighbours is SpanBERT's (arXiv:1907.10529)
corruption used as noise on the input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_finetune.data.epoch import generator_of
from hf_finetune.recipes.schema import TextAugment


class TextAugmentation:
    """Masks tokens of a text as `augment` says; special tokens stay.

    A tokenizer without a mask token (GPT's, T5's) has masked tokens left out; one token of a text always stays then.
    What happens to a text depends on (seed, epoch, id) and nothing else.

    Args:
        augment: names and strengths.
        tokenizer: tells the special tokens and the mask.
        seed: the recipe's seed.
    """

    def __init__(self, augment: TextAugment, tokenizer: Any, seed: int) -> None:
        self.augment = augment
        self.seed = seed
        self.mask: int | None = tokenizer.mask_token_id
        # An unknown word is a word.
        self.special = np.array(sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}), dtype=np.int64)

    def __call__(self, windows: list[dict[str, list[int]]], epoch: int, row: int) -> list[dict[str, list[int]]]:
        """The windows of one text (mostly one), each a dictionary of lists of equal length with `input_ids`."""
        rng = generator_of(self.seed, epoch, row)
        if rng.random() < self.augment.keep:
            return windows
        return [self._change(window, rng) for window in windows]

    def _change(self, window: dict[str, list[int]], rng: np.random.Generator) -> dict[str, list[int]]:
        tokens = np.asarray(window["input_ids"], dtype=np.int64)
        words = np.flatnonzero(~np.isin(tokens, self.special))
        hit = words[hidden_words(len(words), self.augment, rng)]
        if self.mask is not None:
            tokens[hit] = self.mask
            return {**window, "input_ids": tokens.tolist()}
        if len(hit) == len(words) > 0:
            hit = np.delete(hit, rng.integers(len(hit)))
        return {name: np.delete(np.asarray(values), hit).tolist() for name, values in window.items()}


def hidden_words(count: int, augment: TextAugment, rng: np.random.Generator) -> np.ndarray:
    """Which of so many words are hidden, bool (count,)."""
    hidden = rng.random(count) < augment.word_dropout
    length = round(count * augment.span_dropout)
    if length:
        start = int(rng.integers(count - length + 1))
        hidden[start : start + length] = True
    return hidden
