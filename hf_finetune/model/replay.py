"""A forward pass from its middle: what lies before a border is not computed, and what the border receives is given.

The model itself stays as it is. For the length of one pass, modules before the border answer with zeros of the shape
that they would have given, and the border takes the given tensor in place of what comes to it; behind it everything is
the model's own. So the pass goes through the model's own `forward`, whatever the family does around its blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from transformers.modeling_outputs import SequenceClassifierOutput

GIVEN = "frozen_prefix"  # a batch's key: what the border receives, (B, ...)

_ATTACHED = "_replay"
BATCH, LENGTH = -1, -2  # in the place of a size: as many as there are samples, or tokens in a text


@dataclass(frozen=True)
class Shape:
    """A tensor's shape for any batch: sizes, with BATCH and LENGTH where they follow the batch."""

    sizes: tuple[int, ...]
    dtype: torch.dtype

    def of(self, batch: int, length: int) -> tuple[int, ...]:
        """Its sizes in a batch of so many samples and tokens."""
        return tuple(batch if size == BATCH else length if size == LENGTH else size for size in self.sizes)

    def values(self, length: int = 1) -> int:
        """Numbers of one sample, of so many tokens."""
        return math.prod(self.of(1, length))


@dataclass(frozen=True)
class Border:
    """A module, and which of its inputs the prefix computes.

    Args:
        name: of the module.
        place: position or name of the argument.
        shape: of that argument.
    """

    name: str
    place: int | str
    shape: Shape


class Replay:
    """Runs a model from a border on.

    Args:
        model: the model that holds the modules.
        border: where it starts.
        answers: by name, for each module before the border, what it gives at each of its calls: a tree with Shapes.
        pixels: sizes of an image without the batch's: (channels, height, width).
        dense: whether zeros take memory, for models that change them in place.
        bare: whether nothing of the samples is needed behind the border but what is given.
    """

    def __init__(
        self,
        model: nn.Module,
        border: Border,
        answers: Mapping[str, list[Any]],
        *,
        pixels: tuple[int, ...] = (),
        dense: bool = False,
        bare: bool = False,
    ) -> None:
        self.model = model
        self.border = border
        self.answers = answers
        self.pixels = pixels
        self.dense = dense
        self.bare = bare
        self._ends = False  # whether the border's own output is the model's: then it is asked alone
        self._given_back: Any = None

    def __call__(self, model: nn.Module, inputs: Mapping[str, Any]) -> Any:
        """The model's output.

        Args:
            model: the model, or a wrapper that calls it (DistributedDataParallel).
            inputs: the given tensor under GIVEN, and what else the model takes; where the replay is bare, nothing.
        """
        given = inputs[GIVEN]
        if self._ends and model is self.model:
            logits = self.model.get_submodule(self.border.name)(given)
            return SequenceClassifierOutput(logits=logits)  # type: ignore[arg-type]
        rest = self._nothing(given) if self.bare else {name: inputs[name] for name in inputs if name != GIVEN}
        ids = rest.get("input_ids")
        size = (len(given), 0 if ids is None else ids.shape[1])
        with self._standing_in(given, size):
            output = model(**rest)
        # In training alone: in evaluation a dropout behind the border gives back the very tensor it got.
        self._ends = self.model.training and self.bare and output.logits is self._given_back
        self._given_back = None
        return output

    def _nothing(self, given: torch.Tensor) -> dict[str, torch.Tensor]:
        """Black images that take no memory, or texts of one token."""
        if self.pixels:
            return {"pixel_values": torch.zeros((), device=given.device).expand(len(given), *self.pixels)}
        tokens = torch.zeros((len(given), 1), dtype=torch.int64, device=given.device)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    @contextmanager
    def _standing_in(self, given: torch.Tensor, size: tuple[int, int]) -> Iterator[None]:
        changed: list[nn.Module] = []

        def leave() -> None:
            while changed:
                changed.pop().__dict__.pop("forward", None)

        for name, calls in self.answers.items():
            module = self.model.get_submodule(name)
            changed.append(module)
            module.__dict__["forward"] = _stand_in(calls, given.device, size, self.dense)
        module = self.model.get_submodule(self.border.name)
        changed.append(module)
        module.__dict__["forward"] = self._entering(module, given, leave)
        try:
            yield
        finally:
            leave()

    def _entering(self, module: nn.Module, given: torch.Tensor, leave: Any) -> Any:
        own, place = module.forward, self.border.place

        def enter(*args: Any, **kwargs: Any) -> Any:
            leave()  # behind the border all is real, also what runs a second time there
            if isinstance(place, int):
                args = (*args[:place], given, *args[place + 1 :])
            else:
                kwargs[place] = given
            answer = own(*args, **kwargs)
            self._given_back = answer if place == 0 and len(args) == 1 and not kwargs else None
            return answer

        return enter


def _stand_in(calls: list[Any], device: torch.device, size: tuple[int, int], dense: bool) -> Any:
    turn = iter(calls)

    def zeros(leaf: Any) -> Any:
        if not isinstance(leaf, Shape):
            return leaf
        if dense:
            return torch.zeros(leaf.of(*size), dtype=leaf.dtype, device=device)
        return torch.zeros((), dtype=leaf.dtype, device=device).expand(leaf.of(*size))

    def forward(*args: Any, **kwargs: Any) -> Any:
        return pytree.tree_map(zeros, next(turn))

    return forward


def attach(model: nn.Module, replay: Replay | None) -> None:
    """Let a model answer batches that hold GIVEN by this replay; None takes it away. Nothing of it is ever saved."""
    if replay is None:
        model.__dict__.pop(_ATTACHED, None)
    else:
        model.__dict__[_ATTACHED] = replay


def attached(model: Any) -> Replay:
    """The replay of a model, or of the one in a wrapper (DistributedDataParallel)."""
    while _ATTACHED not in model.__dict__:
        model = model.module
    found: Replay = model.__dict__[_ATTACHED]
    return found
