"""A model seen as stem, ordered blocks, head: the words in which every strategy is said.

The conventions, the same for transformers and timm:

- the stem is what runs before the first block: embeddings, patches, the first convolutions;
- blocks are transformer layers, or the residual, inverted-residual, dense or inception blocks of a convolutional net
  (not its
  stages: `train_blocks=4` of a MobileNetV2 is its last four inverted residuals). What stands between two blocks (a
  downsampling, a transition) belongs to the block before it; what stands after the last block (final norm, top
  convolution, pretrained pooler) belongs to the last block and learns with it;
- the head is the classifier's own layers, and whatever after the blocks is not in the checkpoint (`fresh`).

Every parameter belongs to exactly one part, and the parts stand in the order of the forward pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model.empty_input import check_forward_order
from hf_finetune.model.families import Layout, is_backbone, layout_of


@dataclass(frozen=True)
class Part:
    """One part of a model.

    Args:
        name: "stem", "block 1" ... or "head".
        parameters: names of its parameters, as in `model.named_parameters()`.
        modules: names of the modules that lie in this part alone, those without parameters (dropout) among them.
    """

    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Anatomy:
    """Stem, blocks in order of the forward pass, head."""

    stem: Part
    blocks: tuple[Part, ...]
    head: Part

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts in order of the forward pass."""
        return (self.stem, *self.blocks, self.head)

    @cached_property
    def _part_of_parameter(self) -> dict[str, Part]:
        return {name: part for part in self.parts for name in part.parameters}

    def part_of(self, parameter: str) -> Part:
        """The part that a parameter belongs to.

        Raises:
            KeyError: no parameter of that name.
        """
        return self._part_of_parameter[parameter]


def find_anatomy(model: nn.Module, fresh: Iterable[str] = ()) -> Anatomy:
    """Finds stem, blocks and head.

    Args:
        model: a classification model of transformers, a timm model in its TimmWrapper, one with a head or pooling of
            ours, or a bare backbone, whose head is what `fresh` names, as a rule nothing.
        fresh: names of parameters that are newly initialised; those after the last block count to the head.

    Raises:
        UserError: the architecture is unknown and no answer that holds could be found.
    """
    layout = layout_of(model)
    anatomy = _walk(model, layout, frozenset(fresh))
    _check_partition(model, anatomy)
    if not layout.tested:
        check_forward_order(model, [part.modules for part in anatomy.parts])
    return anatomy


def _walk(model: nn.Module, layout: Layout, fresh: frozenset[str]) -> Anatomy:
    """Gives every module a part, in order of registration: what no pattern names goes with the module before it."""
    keys: dict[str, str] = {}
    blocks: list[str] = []
    after_last: list[str] = []  # modules since the last block, not inside it
    current = "stem"
    for name, module in model.named_modules():
        block = layout.block(name)
        if layout.in_head(name):
            keys[name] = "head"
        elif layout.in_stem(name):
            keys[name] = "stem"
        elif block is not None and (block in keys or _starts_block(module)):
            if block not in blocks:
                blocks.append(block)
                after_last = []
            keys[name] = current = block
        else:
            keys[name] = current
            if blocks:
                after_last.append(name)
    if not blocks:
        raise UserError(
            f"No blocks were found in {type(model).__name__}: its modules are not named as its family's usually are."
        )
    around_head = {layout.classifier_parent} | {_parent(name) for name in keys if keys[name] == "head"}
    fresh_modules: set[str] = set()
    for name in after_last:
        module = model.get_submodule(name)
        is_fresh = any(_join(name, parameter) in fresh for parameter, _ in module.named_parameters(recurse=False))
        # A dropout or pooling beside the classifier, outside the backbone, works on what the head sees.
        beside_head = _parent(name) in around_head and next(module.parameters(), None) is None
        # timm's BatchNormAct2d holds its activation inside: it goes where the norm goes.
        is_fresh = is_fresh or (_parent(name) in fresh_modules and next(module.parameters(), None) is None)
        if is_fresh:
            fresh_modules.add(name)
        if is_fresh or beside_head:
            keys[name] = "head"
    return _parts(model, keys, ["stem", *blocks, "head"])


def _parts(model: nn.Module, keys: dict[str, str], order: Sequence[str]) -> Anatomy:
    parameters: dict[str, list[str]] = {key: [] for key in order}
    inside: dict[str, set[str]] = {}  # module -> the parts that its own parameters and its leaves lie in
    for name, module in model.named_modules():
        own = [_join(name, parameter) for parameter, _ in module.named_parameters(recurse=False)]
        parameters[keys[name]] += own
        if own or next(module.children(), None) is None:
            for ancestor in _ancestors(name):
                inside.setdefault(ancestor, set()).add(keys[name])
    modules: dict[str, list[str]] = {key: [] for key in order}
    for name, kinds in inside.items():
        if len(kinds) == 1:
            modules[next(iter(kinds))].append(name)
    names = ["stem", *(f"block {number}" for number in range(1, len(order) - 1)), "head"]
    known = {name for name, _ in model.named_parameters()}  # a tied parameter counts once
    parts = [
        Part(name, tuple(p for p in parameters[key] if p in known), tuple(modules[key]))
        for name, key in zip(names, order, strict=True)
    ]
    return Anatomy(parts[0], tuple(parts[1:-1]), parts[-1])


def _check_partition(model: nn.Module, anatomy: Anatomy) -> None:
    kind = type(model).__name__
    listed = [name for part in anatomy.parts for name in part.parameters]
    if sorted(listed) != sorted(name for name, _ in model.named_parameters()):
        raise UserError(
            f"The parts of {kind} do not hold every parameter exactly once; this architecture is not supported."
        )
    if not anatomy.head.parameters and not is_backbone(model):
        raise UserError(f"No output layer was found in {kind}: give a checkpoint of a classification architecture.")


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer (LayerNorm, BatchNorm, GroupNorm, RMSNorm and their relatives)."""
    return bool(re.search(r"(Layer|Batch|Group|Instance|RMS)_?Norm|^LayerNorm|Norm(Act)?2?d?$", type(module).__name__))


def _starts_block(module: nn.Module) -> bool:
    """A block has parameters and is more than a norm (in a VGG, convolutions and norms are siblings)."""
    return next(module.parameters(), None) is not None and not is_norm(module)


def _join(module: str, parameter: str) -> str:
    return f"{module}.{parameter}" if module else parameter


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _ancestors(name: str) -> list[str]:
    """The module itself, and every module around it except the whole model."""
    pieces = name.split(".") if name else []
    return [".".join(pieces[:length]) for length in range(1, len(pieces) + 1)]
