"""From a checkpoint's name to a model with a new head, and the processor that goes with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from hf_finetune.errors import UserError
from hf_finetune.model.anatomy import Anatomy, find_anatomy
from hf_finetune.model.heads import output_layer, renew, seeded, with_mlp_head
from hf_finetune.model.processors import give_padding_token, limit_length, load_processor
from hf_finetune.model.quiet import quiet
from hf_finetune.model.sources import commit_of, loading, resolve_checkpoint

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Model, ProblemType, Task

# BatchNorm in PyTorch: running = (1 - momentum) * running + momentum * batch.
_LARGEST_MOMENTUM, _USUAL_MOMENTUM = 0.5, 0.1
# Parameters that only pretraining uses; some checkpoints leave them out.
_UNUSED = ("mask_token", "mask_emb")


@dataclass
class LoadedModel:
    """A model ready for a strategy.

    Args:
        model: on the CPU, float32, in train mode.
        processor: image processor or tokenizer.
        fresh: names of the parameters that are newly initialised.
        revision: the commit actually loaded; None for a folder.
        anatomy: stem, blocks, head.
    """

    model: PreTrainedModel
    processor: Any
    fresh: tuple[str, ...]
    revision: str | None
    anatomy: Anatomy


def load_pretrained(
    model: Model,
    task: Task,
    *,
    num_labels: int,
    label_names: Sequence[str],
    problem_type: ProblemType,
    seed: int,
    scratch: bool = False,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Loads a checkpoint and gives it a head for the task.

    The checkpoint's own head is kept only where its label names are the same, in the same order; else a new one is
    made, initialised from `seed` alone and so the same on every rank. Weights come from safetensors files, as float32.

    Args:
        model: the recipe's model section.
        task: image or text classification.
        num_labels: number of outputs, L.
        label_names: L names; of the target columns for regression.
        problem_type: sets the loss.
        seed: of everything newly initialised.
        scratch: take the checkpoint's architecture and processor with random weights.
        trust_remote_code: allow the checkpoint's own Python code to run.

    Raises:
        UserError: no such checkpoint, no safetensors file, no processor, an architecture without such a head, or
            weights that do not fit the architecture anywhere but in the head.
    """
    path = resolve_checkpoint(model.checkpoint)
    hub: dict[str, Any] = {"revision": model.revision, "trust_remote_code": trust_remote_code}
    with quiet(), loading(model.checkpoint, model.revision):
        config = AutoConfig.from_pretrained(path, **hub)
        keep_head = _same_labels(config, label_names) and model.head.kind == "linear" and not scratch
        _set_task(config, task, label_names, problem_type, model.checkpoint)
        auto = auto_class(task)
        with seeded(seed):
            if scratch:
                net = auto.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
                info: dict[str, Any] = {}
            else:
                net, info = auto.from_pretrained(
                    path,
                    config=config,
                    dtype=torch.float32,
                    use_safetensors=True,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                    **hub,
                )
    processor = load_processor(path, model.checkpoint, task, **hub)
    give_padding_token(net, processor, model.checkpoint)
    limit_length(net, processor)
    net, fresh, anatomy = _new_head(net, info, model, task, seed, keep_head, scratch)
    usual_batch_norm_momentum(net)
    return LoadedModel(net.train(), processor, fresh, commit_of(path, model.revision), anatomy)


def auto_class(task: Task) -> Any:
    """The transformers class that loads models of a task."""
    return AutoModelForImageClassification if task == "image-classification" else AutoModelForSequenceClassification


def _same_labels(config: PretrainedConfig, label_names: Sequence[str]) -> bool:
    return [config.id2label[index] for index in sorted(config.id2label)] == list(label_names)


def _set_task(
    config: PretrainedConfig, task: Task, label_names: Sequence[str], problem_type: ProblemType, checkpoint: str
) -> None:
    """Labels (id2label with integer keys) and problem type; and a class that has a loss, where a family has several."""
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    config.problem_type = problem_type
    if hasattr(config, "label_names"):
        config.label_names = list(label_names)  # TimmWrapper saves these, not id2label
    if (getattr(config, "auto_map", None) or {}).get(auto_class(task).__name__):
        return
    try:
        classes = auto_class(task)._model_mapping[type(config)]
    except KeyError:
        raise UserError(
            f"{checkpoint} is a {config.model_type} checkpoint, and transformers has no {task} model of that "
            "architecture. "
            f"Give a checkpoint that fits task: {task}, or change the task."
        ) from None
    if isinstance(classes, tuple):
        # DeiT and LeViT: the distilled class has no loss, and from_config fails where a config names no class.
        config.architectures = [classes[0].__name__]


def _new_head(
    net: PreTrainedModel, info: dict[str, Any], model: Model, task: Task, seed: int, keep_head: bool, scratch: bool
) -> tuple[PreTrainedModel, tuple[str, ...], Anatomy]:
    """Makes what is not in the checkpoint; returns the model, the names of its new parameters, and its anatomy."""
    fresh = {name for name, _ in net.named_parameters()} if scratch else _missing(net, info)
    anatomy = find_anatomy(net, fresh)
    if not scratch:
        _refuse_outside_head(net, info, anatomy, model.checkpoint)
    layer = output_layer(net, anatomy)
    if model.head.kind == "mlp":
        net, new = with_mlp_head(net, layer, model.head, task, seed)
        fresh = {f"model.{name}" for name in fresh if not name.startswith(f"{layer}.")} | set(new)
        anatomy = find_anatomy(net, fresh)
    elif not keep_head and not scratch:
        renew(net, layer, seed)
        fresh |= {f"{layer}.{name}" for name, _ in net.get_submodule(layer).named_parameters()}
    order = [name for name, _ in net.named_parameters()]
    return net, tuple(name for name in order if name in fresh), anatomy


def _missing(net: nn.Module, info: dict[str, Any]) -> set[str]:
    """Parameters that the checkpoint lacks, or has in another shape."""
    absent = set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}
    return {name for name, _ in net.named_parameters() if name in absent and not name.endswith(_UNUSED)}


def _refuse_outside_head(net: nn.Module, info: dict[str, Any], anatomy: Anatomy, checkpoint: str) -> None:
    """Stem, positions and blocks must come from the checkpoint: random ones would train to a poor model in silence."""
    head = set(anatomy.head.parameters)
    shapes = [
        f"{key[0]}: {tuple(key[1])} in the checkpoint, {tuple(key[2])} in the model"
        for key in info["mismatched_keys"]
        if key[0] not in head
    ]
    if shapes:
        raise UserError(
            f"{checkpoint}: these weights have another shape than its config.json asks for, and they are not part of "
            "the head:\n  "
            + "\n  ".join(_first(shapes))
            + "\nIts configuration (image size, channels, widths) does not belong to these weights: use the "
            "checkpoint's own "
            "config.json, or strategy=scratch to train from random weights."
        )
    buffers = {name for name, _ in net.named_buffers() if not name.endswith("num_batches_tracked")}
    parameters = {name for name, _ in net.named_parameters() if not name.endswith(_UNUSED)}
    lacking = sorted(name for name in info["missing_keys"] if name in (parameters | buffers) and name not in head)
    if lacking:
        raise UserError(
            f"{checkpoint}: its file lacks {len(lacking)} weights of {type(net).__name__} outside the head:\n  "
            + "\n  ".join(_first(lacking))
            + "\nThe checkpoint is incomplete or of another architecture. Use another one, or strategy=scratch."
        )


def _first(lines: Iterable[str], count: int = 5) -> list[str]:
    lines = list(lines)
    return lines[:count] + ([f"and {len(lines) - count} more"] if len(lines) > count else [])


def usual_batch_norm_momentum(net: nn.Module) -> None:
    """Lowers BatchNorm momenta that were written in TensorFlow's sense.

    transformers' MobileNetV2 (0.997) and EfficientNet (0.99) pass them to PyTorch as they are, where the running
    statistics then are nearly those of the last batch alone.
    """
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.momentum or 0.0) > _LARGEST_MOMENTUM:
            module.momentum = _USUAL_MOMENTUM


__all__ = ["LoadedModel", "auto_class", "load_pretrained", "resolve_checkpoint", "usual_batch_norm_momentum"]
