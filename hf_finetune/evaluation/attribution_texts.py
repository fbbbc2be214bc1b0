"""Which words of a text moved a model's answer: gradient x input. See `attribution`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hf_finetune.data.long_texts import shortener
from hf_finetune.evaluation.attribution import Attributions, Deadline, NotPossible, at_rest, goal, in_batches

_NO_OFFSETS = "No weights of words: this tokenizer does not tell where in the text its tokens stand."
_NO_TABLE = "No weights of words: the gradient does not reach this architecture's word embeddings."
Piece = tuple[str, float]


def explain_texts(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[tuple[str, ...]],
    answers: Sequence[int],
    outputs: slice = slice(None),
    *,
    single: bool = True,
    max_length: int | None = None,
    seconds: float = 60.0,
) -> Attributions:
    """Weights of words: what speaks for the answer is above 0, what speaks against it below.

    Args:
        model: a classification model; left as it was.
        tokenizer: its tokenizer.
        texts: each alone, or a pair. A text longer than the model takes is read to where it is cut.
        answers: for each text the output to explain.
        outputs: those of the task.
        single: see `attribution.goal`.
        max_length: tokens read; the tokenizer's limit if None.
        seconds: after these no further layer is computed.
    """
    result = Attributions("gradient x input")
    if not getattr(tokenizer, "is_fast", False):
        return Attributions(skipped=_NO_OFFSETS)
    limit = max_length or (tokenizer.model_max_length if tokenizer.model_max_length < 100_000 else None)

    def explain(rows: range) -> None:
        batch, own = texts[rows.start : rows.stop], answers[rows.start : rows.stop]
        encoded = _encode(tokenizer, batch, limit)
        offsets = encoded.pop("offset_mapping").tolist()
        weights = _weights(model, dict(encoded), own, outputs, single)
        for place, parts in enumerate(batch):
            result.found[rows.start + place] = _pieces(encoded, offsets[place], weights[place], place, parts)

    with at_rest(model):
        result.skipped = in_batches(model, len(texts), Deadline(seconds), explain)
    if not result.found:
        result.method = ""
    return result


def _encode(tokenizer: Any, batch: Sequence[tuple[str, ...]], limit: int | None) -> Any:
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding  # what it was told last goes into its tokenizer.json
    try:
        if limit is not None:
            shorten = shortener(tokenizer, limit)
            batch = [tuple(map(shorten, parts)) for parts in batch]
        pairs = [parts[1] for parts in batch] if len(batch[0]) > 1 else None
        return tokenizer(
            [parts[0] for parts in batch],
            pairs,
            truncation=limit is not None,
            max_length=limit,
            padding=True,
            return_tensors="pt",
            return_offsets_mapping=True,
        )
    finally:
        backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
        backend.no_padding() if padding is None else backend.enable_padding(**padding)


def _weights(
    model: nn.Module, inputs: dict[str, torch.Tensor], answers: Sequence[int], outputs: slice, single: bool
) -> torch.Tensor:
    """Gradient x input of each token, (B, tokens)."""
    device = next(model.parameters()).device
    table = _table(model)
    seen: list[torch.Tensor] = []

    def keep(module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    hook = table.register_forward_hook(keep)
    try:
        logits = model(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits
    finally:
        hook.remove()
    if not seen or not logits.requires_grad:
        raise NotPossible(_NO_TABLE)
    gradient = torch.autograd.grad(goal(logits, outputs, answers, single), seen[-1], allow_unused=True)[0]
    if gradient is None or gradient.ndim != 3:
        raise NotPossible(_NO_TABLE)
    return (gradient * seen[-1].detach()).sum(dim=-1).float().cpu()


def _table(model: nn.Module) -> nn.Module:
    """The embedding of words; a model of ours keeps it in the model inside."""
    for place in (model, getattr(model, "model", None)):
        found = None
        try:
            found = place.get_input_embeddings() if place is not None else None  # type: ignore[operator]
        except (AttributeError, NotImplementedError):
            continue
        if isinstance(found, nn.Module):
            return found
    raise NotPossible(_NO_TABLE)


def _pieces(
    encoded: Any, offsets: list[list[int]], weights: torch.Tensor, row: int, parts: tuple[str, ...]
) -> list[list[Piece]]:
    """The text as it stands, in pieces: words with the sum of their tokens' weights, what lies between them with 0."""
    owners, words = encoded.sequence_ids(row), encoded.word_ids(row)
    largest = max((abs(float(w)) for w, owner in zip(weights, owners, strict=True) if owner is not None), default=0.0)
    found = []
    for part, text in enumerate(parts):
        pieces: list[Piece] = []
        end, word_before = 0, None
        for place, (start, stop) in enumerate(offsets):
            if owners[place] != part or stop <= start:
                continue
            weight = float(weights[place]) / largest if largest else 0.0
            if start > end:
                pieces.append((text[end:start], 0.0))
            if pieces and words[place] is not None and words[place] == word_before and start <= end:
                pieces[-1] = (pieces[-1][0] + text[end:stop], pieces[-1][1] + weight)
            else:
                pieces.append((text[max(start, end) : stop], weight))
            end, word_before = stop, words[place]
        if text[end:].strip():
            pieces.append((" …", 0.0))  # the model did not read on
        found.append([(piece, max(-1.0, min(1.0, weight))) for piece, weight in pieces])
    return found
