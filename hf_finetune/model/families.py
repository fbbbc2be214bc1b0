"""Where each family keeps its blocks and its classifier, and how an unknown architecture is read.

For transformers' models a table; for timm the models' own `group_matcher` and `get_classifier`, with exceptions; for
anything else the largest set of alike blocks in module lists, taken only if a recorded forward pass runs through the
parts in order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES, MODEL_MAPPING_NAMES

from hf_finetune.errors import UserError
from hf_finetune.model.custom_head import CustomHeadConfig


@dataclass(frozen=True)
class Layout:
    """Regular expressions on module names, and what they are relative to.

    Args:
        blocks: each match is a block.
        head: the classifier and what lies in it.
        stem: modules of the stem that are registered after blocks begin, or would match as a block.
        prefix: put before every expression: the path to the model that the expressions are about.
        tested: whether the test suite holds the order of this layout; if not, it is checked when a model is read.
    """

    blocks: tuple[str, ...]
    head: tuple[str, ...]
    stem: tuple[str, ...] = ()
    prefix: str = ""
    tested: bool = True

    @property
    def classifier_parent(self) -> str:
        """Name of the module that holds backbone and classifier side by side."""
        return self.prefix.removesuffix(".")

    def block(self, name: str) -> str | None:
        """The name of the block that module `name` is, or lies in."""
        return self._match(self.blocks, name)

    def in_head(self, name: str) -> bool:
        """Whether module `name` lies in the classifier."""
        return self._match(self.head, name) is not None

    def in_stem(self, name: str) -> bool:
        """Whether module `name` is named as a part of the stem."""
        return self._match(self.stem, name) is not None

    def _match(self, patterns: Sequence[str], name: str) -> str | None:
        for pattern in patterns:
            if match := re.match(rf"{re.escape(self.prefix)}(?:{pattern})(?=\.|$)", name):
                return match.group(0)
        return None


_TRANSFORMERS: dict[str, Layout] = {
    "vit": Layout((r"vit\.layers\.\d+",), ("classifier",)),
    "deit": Layout((r"deit\.layers\.\d+",), ("classifier", "cls_classifier", "distillation_classifier")),
    "beit": Layout((r"beit\.layers\.\d+",), ("classifier",), (r"beit\.shared_position_bias",)),
    "dinov2": Layout((r"dinov2\.encoder\.layer\.\d+",), ("classifier",)),
    "swin": Layout((r"swin\.encoder\.layers\.\d+\.blocks\.\d+",), ("classifier",)),
    "convnext": Layout((r"convnext\.encoder\.stages\.\d+\.layers\.\d+",), ("classifier",)),
    "resnet": Layout((r"resnet\.encoder\.stages\.\d+\.layers\.\d+",), ("classifier",)),
    "mobilenet_v2": Layout((r"mobilenet_v2\.layer\.\d+",), ("classifier",)),
    "efficientnet": Layout((r"efficientnet\.encoder\.blocks\.\d+",), ("classifier",)),
    "bert": Layout((r"bert\.encoder\.layer\.\d+",), ("classifier",)),
    "distilbert": Layout((r"distilbert\.transformer\.layer\.\d+",), ("pre_classifier", "classifier")),
    "roberta": Layout((r"roberta\.encoder\.layer\.\d+",), ("classifier",)),
    # ALBERT applies one group of layers again and again: as a rule it has a single block.
    "albert": Layout((r"albert\.encoder\.albert_layer_groups\.\d+",), ("classifier",)),
    "electra": Layout((r"electra\.encoder\.layer\.\d+",), ("classifier",)),
    # XLNet uses one dropout on the embeddings and again at the end: it is the stem's.
    "xlnet": Layout((r"transformer\.layer\.\d+",), ("sequence_summary", "logits_proj"), (r"transformer\.dropout",)),
    "gpt2": Layout((r"transformer\.h\.\d+",), ("score",)),
    **dict.fromkeys(("clip", "siglip"), Layout((r"vision_model\.encoder\.layers\.\d+",), ("classifier",))),
    "modernbert": Layout((r"model\.layers\.\d+",), ("classifier",)),
}

# Models without an output layer. Those of the table above are found there, less the name of the backbone.
_TWO_TOWERS = Layout((r"encoder\.layers\.\d+",), ())
# T5 uses one dropout on the embeddings and again at the end.
_T5 = Layout((r"encoder\.block\.\d+",), (), (r"encoder\.dropout",))
_BACKBONES: dict[str, Layout] = {
    **dict.fromkeys(("clip_vision_model", "clip_text_model", "siglip_vision_model", "siglip_text_model"), _TWO_TOWERS),
    **dict.fromkeys(("t5", "mt5", "umt5"), _T5),
    "dinov3_vit": Layout((r"model\.layer\.\d+",), ()),
    "dinov3_convnext": Layout((r"model\.stages\.\d+\.layers\.\d+",), ()),
}

# timm classes whose own group_matcher does not give blocks in our sense.
_TIMM: dict[str, Layout] = {
    "VGG": Layout((r"features\.\d+", r"pre_logits\.fc\d+"), (), (r"features\.0",)),
    "InceptionV3": Layout((r"Mixed_\w+",), ()),
    "InceptionResnetV2": Layout((r"mixed_\w+", r"repeat(?:_\d)?\.\d+", r"block8"), ()),
}
_TIMM_TESTED = ("VisionTransformer", "ResNet", "DenseNet", "Xception", "MobileNetV3", "EfficientNet", *_TIMM)


def layout_of(model: nn.Module) -> Layout:
    """Where `model` keeps its blocks and its classifier.

    Raises:
        UserError: the architecture is unknown and has no set of alike blocks, or no output layer.
    """
    inner: Any = model
    if isinstance(getattr(model, "config", None), CustomHeadConfig):
        return _behind_our_layers(model, layout_of(model.model))  # type: ignore[arg-type]
    if isinstance(getattr(inner, "timm_model", None), nn.Module):
        return _timm_layout(inner.timm_model, "timm_model.")
    model_type = getattr(getattr(inner, "config", None), "model_type", "")
    known = _TRANSFORMERS.get(model_type)
    if is_backbone(inner):
        return _BACKBONES.get(model_type) or (_bare(known) if known else Layout(_alike_blocks(inner), (), tested=False))
    if known is not None:
        return known
    return Layout(_alike_blocks(inner), (_output_layer(inner),), tested=False)


def is_backbone(model: nn.Module) -> bool:
    """Whether a model of transformers gives features and no logits."""
    model_type = getattr(getattr(model, "config", None), "model_type", "")
    names = (MODEL_MAPPING_NAMES.get(model_type), MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(model_type))
    return type(model).__name__ in names


def _bare(layout: Layout) -> Layout:
    """The layout of a classifier's backbone: `vit.layers.0` is its `layers.0`."""
    blocks = tuple(pattern.partition(r"\.")[2] for pattern in layout.blocks)
    return Layout(blocks, (), tuple(pattern.partition(r"\.")[2] for pattern in layout.stem))


def _behind_our_layers(model: Any, layout: Layout) -> Layout:
    """The layout of a model with a head or pooling of ours: from the pooling on, everything is the head."""
    prefix, head = f"model.{layout.prefix}", layout.head
    if model.config.is_backbone:
        blocks, stem = (tuple(re.escape(prefix) + each for each in ways) for ways in (layout.blocks, layout.stem))
        return Layout(blocks, (r"task_\w+",), stem, tested=layout.tested)
    if model.config.pool_layer:
        first = f"model.{model.config.pool_layer}"
        names = [name for name, _ in model.named_modules()]
        after = names[names.index(first) :] + [name for name in names if name.endswith(".fc_norm")]
        head += tuple(re.escape(name.removeprefix(prefix)) for name in after)
    return Layout(layout.blocks, head, layout.stem, prefix, tested=layout.tested)


def _timm_layout(timm_model: Any, prefix: str) -> Layout:
    kind = type(timm_model).__name__
    classifiers = timm_model.get_classifier()
    classifiers = classifiers if isinstance(classifiers, tuple | list) else (classifiers,)
    head = tuple(
        re.escape(name) for name, module in timm_model.named_modules() if any(module is c for c in classifiers)
    )
    if not head:
        raise UserError(f"timm's {kind} has no classifier: its head cannot be replaced by a new one.")
    if kind in _TIMM:
        return Layout(_TIMM[kind].blocks, head, _TIMM[kind].stem, prefix)
    matcher = timm_model.group_matcher(coarse=False) if hasattr(timm_model, "group_matcher") else None
    blocks: tuple[str, ...] = ()
    if isinstance(matcher, dict):
        patterns = matcher["blocks"]
        patterns = [(patterns, None)] if isinstance(patterns, str) else patterns
        # A suffix marks what joins a neighbouring group (a transition, the final norm); our walk does that by itself.
        blocks = tuple(pattern.removeprefix("^") for pattern, suffix in patterns if suffix is None)
    return Layout(blocks or _alike_blocks(timm_model), head, (), prefix, tested=kind in _TIMM_TESTED and bool(blocks))


def _alike_blocks(model: nn.Module) -> tuple[str, ...]:
    """The modules of one class in module lists that hold most parameters: at least two, and half of the model."""
    found: dict[type, list[tuple[str, int]]] = defaultdict(list)
    for name, container in model.named_modules():
        if not isinstance(container, nn.ModuleList | nn.Sequential):
            continue
        for child_name, child in container.named_children():
            layers = [module for module in child.modules() if next(module.parameters(recurse=False), None) is not None]
            if len(layers) >= 2:
                size = sum(parameter.numel() for parameter in child.parameters())
                found[type(child)].append((f"{name}.{child_name}" if name else child_name, size))
    total = sum(parameter.numel() for parameter in model.parameters())
    sized = [(sum(size for _, size in blocks), blocks) for blocks in found.values() if len(blocks) >= 2]
    largest, blocks = max(sized, key=lambda item: item[0], default=(0, []))
    if 2 * largest < total:
        raise UserError(
            f"The architecture {type(model).__name__} is unknown to hf_finetune, and no list of alike blocks holds "
            "half of its "
            "parameters, so nothing can be said about its stem, blocks and head. Use another checkpoint."
        )
    return tuple(re.escape(name) for name, _ in blocks)


def _output_layer(model: nn.Module) -> str:
    """The last linear layer or convolution that gives as many values as there are labels."""
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    for name, module in reversed(list(model.named_modules())):
        if labels in (getattr(module, "out_features", None), getattr(module, "out_channels", None)):
            return re.escape(name)
    raise UserError(
        f"The architecture {type(model).__name__} is unknown to hf_finetune, and none of its layers gives {labels} "
        "values, one a "
        "label: its head cannot be found. Use another checkpoint."
    )
