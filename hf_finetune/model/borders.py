"""Where a model can start in its middle: found by watching it run, proved by comparing outputs and gradients."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from hf_finetune.model.border_proof import knows_no_padding, modes_kept, proved
from hf_finetune.model.replay import BATCH, LENGTH, Border, Replay, Shape

Batch = Mapping[str, torch.Tensor]
_WAYS = ((False, True), (True, True), (False, False), (True, False))  # dense, bare
_USUAL_LENGTH = 100  # tokens, to compare what is kept of a text's every token with what is kept once


def find_replay(
    model: nn.Module, prefix: Sequence[str], learning: Collection[str], small: Batch, large: Batch
) -> Replay | None:
    """A way to run the model with its prefix's work given, or None where no border gives the model's own answers.

    Borders are tried from the smallest tensor to keep on. Each is proved on `large`: the same logits in eval mode, and
    in train mode, from the same random numbers, the same logits and gradients.

    Args:
        model: its learning parameters ask for gradients; left as it was, without gradients.
        prefix: names of the prefix's largest modules.
        learning: names of the parameters that learn.
        small: model inputs, of two samples.
        large: of three or more, and for texts of another length.
    """
    one, other = _watch(model, prefix, small), _watch(model, prefix, large)
    sizes = tuple((len(_first(batch)), _length(batch)) for batch in (small, large))
    if one.answers.keys() != other.answers.keys() or len(one.entries) != len(other.entries):
        return None
    found = []
    behind = (_after_prefix(watched, learning) for watched in (one, other))
    for (name, place, here), (_, _, there) in zip(*behind, strict=False):
        shape = _shape(here, there, *sizes)
        if shape is not None and shape.sizes[0] == BATCH and shape.dtype.is_floating_point:
            found.append(Border(name, place, shape))
    found.sort(key=lambda border: border.shape.values(_USUAL_LENGTH))
    answers = _answers(one, other, sizes)
    if answers is None:
        return None
    pixels = tuple(large["pixel_values"].shape[1:]) if "pixel_values" in large else ()
    for border in found:
        for dense, bare in _WAYS:
            if bare and "input_ids" in large and LENGTH in border.shape.sizes:
                continue  # masks and positions come from the tokens
            replay = Replay(model, border, answers, pixels=pixels, dense=dense, bare=bare)
            if proved(replay, large) and knows_no_padding(replay, large):
                return replay
    return None


class _Watched:
    """What ran: calls of the prefix, and entries into other modules, in order."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}
        self.entries: list[tuple[str, int | str, torch.Tensor]] = []
        self.last_of_prefix = 0  # entries before the latest call of a module of the prefix, by the time of each entry
        self.behind: list[int] = []


def _watch(model: nn.Module, prefix: Sequence[str], batch: Batch) -> _Watched:
    seen = _Watched()
    inner = {name for top in prefix for name in _inside(model, top)}

    def answered(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            seen.answers.setdefault(name, []).append(output)
            seen.last_of_prefix = len(seen.entries)

        return hook

    def entered(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arguments: list[tuple[Any, Any]] = [*enumerate(args), *kwargs.items()]
            found = next(((place, value) for place, value in arguments if torch.is_tensor(value)), None)
            place, value = found if found is not None else (0, torch.empty(0, dtype=torch.int64))
            seen.entries.append((name, place, value.detach()))
            seen.behind.append(seen.last_of_prefix)

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(answered(name)) for name in prefix]
    for name, module in model.named_modules():
        spans = any(top.startswith(f"{name}.") for top in prefix)
        if name and name not in inner and not spans:
            hooks.append(module.register_forward_pre_hook(entered(name), with_kwargs=True))
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()
            model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _inside(model: nn.Module, top: str) -> set[str]:
    return {f"{top}.{name}" if name else top for name, _ in model.get_submodule(top).named_modules()}


def _after_prefix(seen: _Watched, learning: Collection[str]) -> list[tuple[str, int | str, torch.Tensor]]:
    """The modules that the prefix's output enters first: up to the first that learns, and its own first children.

    Those that ran before a later call of the prefix are not among them (rotary embeddings, say).
    """
    holders = {".".join(name.split(".")[:length]) for name in learning for length in range(1, name.count(".") + 1)}
    first = next((place for place, (name, _, _) in enumerate(seen.entries) if name in holders), None)
    if first is None:
        return []
    start = seen.behind[first]
    last = first
    while last + 1 < len(seen.entries) and seen.entries[last + 1][0].startswith(f"{seen.entries[last][0]}."):
        last += 1
    return seen.entries[start : last + 1]


def _answers(one: _Watched, other: _Watched, sizes: Any) -> dict[str, list[Any]] | None:
    """By module and call, its output with Shapes for tensors; None where one cannot be foretold."""
    found: dict[str, list[Any]] = {}
    for name, calls in one.answers.items():
        if len(calls) != len(other.answers[name]):
            return None
        found[name] = []
        for here, there in zip(calls, other.answers[name], strict=True):
            (leaves, form), (others, _) = pytree.tree_flatten(here), pytree.tree_flatten(there)
            if len(leaves) != len(others):
                return None
            shapes = []
            for leaf, its in zip(leaves, others, strict=True):
                shape = _shape(leaf, its, *sizes) if torch.is_tensor(leaf) else leaf
                if torch.is_tensor(leaf) and shape is None:
                    return None
                shapes.append(shape)
            found[name].append(pytree.tree_unflatten(shapes, form))
    return found


def _shape(here: Any, there: Any, sizes: tuple[int, int], other_sizes: tuple[int, int]) -> Shape | None:
    if here.dim() != there.dim() or here.dim() == 0:
        return None
    found = []
    for size, other in zip(here.shape, there.shape, strict=True):
        if size == other:
            found.append(int(size))
        elif (size, other) == (sizes[0], other_sizes[0]):
            found.append(BATCH)
        elif (size, other) == (sizes[1], other_sizes[1]):
            found.append(LENGTH)
        else:
            return None
    return Shape(tuple(found), here.dtype)


def _first(batch: Batch) -> torch.Tensor:
    return next(iter(batch.values()))


def _length(batch: Batch) -> int:
    ids = batch.get("input_ids")
    return 0 if ids is None else int(ids.shape[1])
