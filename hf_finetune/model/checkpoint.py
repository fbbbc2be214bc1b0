"""From a checkpoint's name to a model with a new head, and the processor that goes with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from hf_finetune.collector import look_as_usual
from hf_finetune.errors import UserError
from hf_finetune.model.anatomy import Anatomy, find_anatomy
from hf_finetune.model.backbones import choose_class
from hf_finetune.model.heads import auto_class, seeded
from hf_finetune.model.memory_needed import refuse_if_too_large
from hf_finetune.model.new_head import head_in_words, new_head
from hf_finetune.model.processors import give_padding_token, limit_length, load_processor
from hf_finetune.model.quiet import quiet
from hf_finetune.model.sources import commit_of, loading, resolve_checkpoint
from hf_finetune.model.strangers import look_over
from hf_finetune.model.surgery import operate, set_momentum, timm_state

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
        changes: what became of the checkpoint, beside a new linear head, in words.
    """

    model: PreTrainedModel
    processor: Any
    fresh: tuple[str, ...]
    revision: str | None
    anatomy: Anatomy
    changes: tuple[str, ...] = ()


def load_pretrained(
    model: Model,
    task: Task,
    *,
    num_labels: int,
    label_names: Sequence[str],
    problem_type: ProblemType,
    seed: int,
    scratch: bool = False,
    layer: str | int = "last",
    tasks: Sequence[Mapping[str, Any]] = (),
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
        layer: block after which the model ends: "last", "middle" or its number.
        tasks: several tasks that share the outputs, as `MultiTaskConfig` takes them; each gets a new head.
        trust_remote_code: allow the checkpoint's own Python code to run.

    Raises:
        UserError: no such checkpoint, no safetensors file, no processor, an architecture without such a head, or
            weights that do not fit the architecture anywhere but in the head.
    """
    path = resolve_checkpoint(model.checkpoint)
    hub: dict[str, Any] = {"revision": model.revision, "trust_remote_code": trust_remote_code}
    with quiet(), loading(model.checkpoint, model.revision):
        look_over(path, model.checkpoint, model.revision)
        config = AutoConfig.from_pretrained(path, **hub)
        original, same_labels = config.model_type, _same_labels(config, label_names)
        chosen, auto = choose_class(config, task, model.pooling, model.checkpoint)
        keep_head = same_labels and model.head.kind == "linear" and not scratch and chosen is config and not tasks
        _set_task(chosen, auto, label_names, None if tasks else problem_type)
        refuse_if_too_large(auto, chosen, model.checkpoint, trust_remote_code=trust_remote_code)
        look_as_usual()
        with seeded(seed):
            net, info = _network(auto, chosen, path, seed, scratch, hub)
    processor = load_processor(path, model.checkpoint, task, **hub)
    give_padding_token(net, processor, model.checkpoint)
    limit_length(net, processor)
    fresh = _fresh_parameters(net, info, model.checkpoint, scratch)
    operated = operate(net, processor, model, fresh=fresh, seed=seed, scratch=scratch, layer=layer)
    net, new, anatomy = new_head(
        operated.net,
        operated.processor,
        operated.fresh,
        model,
        task,
        seed=seed,
        keep=keep_head,
        scratch=scratch,
        tasks=tasks,
    )
    wrapped = "model." if net is not operated.net else ""
    renewed = [f"{wrapped}{name}" for name in operated.renewed if f"{wrapped}{name}" not in new]
    changes = (*head_in_words(net, original, model), *operated.changes, *_batch_norm(net, model))
    revision = commit_of(path, model.revision)
    return LoadedModel(net.train(), operated.processor, (*new, *renewed), revision, anatomy, changes)


def _same_labels(config: PretrainedConfig, label_names: Sequence[str]) -> bool:
    return [config.id2label[index] for index in sorted(config.id2label)] == list(label_names)


def _set_task(
    config: PretrainedConfig, auto: Any, label_names: Sequence[str], problem_type: ProblemType | None
) -> None:
    """Labels (id2label with integer keys) and problem type; and a class that has a loss, where a family has several."""
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    config.problem_type = problem_type
    if hasattr(config, "label_names"):
        config.label_names = list(label_names)  # TimmWrapper saves these, not id2label
    classes = auto._model_mapping.get(type(config), None)
    if isinstance(classes, tuple):
        # DeiT and LeViT: the distilled class has no loss, and from_config fails where a config names no class.
        config.architectures = [classes[0].__name__]


def _network(
    auto: Any, config: PretrainedConfig, path: str, seed: int, scratch: bool, hub: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The checkpoint in the class of the task, and what `from_pretrained` says of its weights; random from scratch."""
    if scratch:
        net = auto.from_config(config, dtype=torch.float32, trust_remote_code=hub["trust_remote_code"])
        if config.model_type == "timm_wrapper":
            net.load_state_dict(timm_state(net, seed))
        return net, {}
    net, info = auto.from_pretrained(
        path,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **hub,
    )
    return net, info


def _fresh_parameters(net: PreTrainedModel, info: dict[str, Any], checkpoint: str, scratch: bool) -> set[str]:
    """Names of the parameters that are not from the checkpoint: all of the head, or everything from scratch."""
    if scratch:
        return {name for name, _ in net.named_parameters()}
    fresh = _missing(net, info)
    _refuse_outside_head(net, info, find_anatomy(net, fresh), checkpoint)
    return fresh


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


def _batch_norm(net: nn.Module, model: Model) -> list[str]:
    """BatchNorm's momentum: the usual one, or the recipe's, which is said in words."""
    usual_batch_norm_momentum(net)
    return [] if model.batch_norm_momentum is None else [set_momentum(net, model.batch_norm_momentum)]


def usual_batch_norm_momentum(net: nn.Module) -> None:
    """Lowers BatchNorm momenta that were written in TensorFlow's sense.

    transformers' MobileNetV2 (0.997) and EfficientNet (0.99) pass them to PyTorch as they are, where the running
    statistics then are nearly those of the last batch alone.
    """
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.momentum or 0.0) > _LARGEST_MOMENTUM:
            module.momentum = _USUAL_MOMENTUM


__all__ = ["LoadedModel", "auto_class", "load_pretrained", "resolve_checkpoint", "usual_batch_norm_momentum"]
