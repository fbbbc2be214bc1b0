"""A checkpoint's small files, looked at before any library acts on them: whoever made them may mean harm.

Weights are read from safetensors alone, which hold numbers and nothing else. What is left to a stranger is JSON: sizes
that no memory holds, places outside the checkpoint, code by another name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_finetune.errors import UserError

_CONFIG, _INDEX, _ADAPTER = "config.json", "model.safetensors.index.json", "adapter_config.json"
_PREPROCESSOR, _PROCESSOR = "preprocessor_config.json", "processor_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_LARGEST_JSON = 50_000_000  # bytes; that of 21,000 named classes takes two million
_MOST_LAYERS = 2_000  # of any kind; the deepest known nets have about a thousand
_MOST_LABELS = 1_000_000
_LARGEST_IMAGE = 16_384  # pixels, a side
_LARGEST_RANK = 65_536
_MOST_SHARDS = 10_000
_COUNTS = re.compile(r"(^|_)(layers?|depths?|blocks|experts|stages|hidden_groups|group_num)(_|$)")
_SHARD = re.compile(r"[\w-][\w.-]*\.safetensors", re.ASCII)
# Arguments of timm.create_model that fetch or open files.
_OPENING = re.compile(r"pretrained.*|checkpoint_path|cache_dir")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)


def look_over(path: str, checkpoint: str, revision: str | None) -> None:
    """Refuse a checkpoint whose files ask for what no checkpoint needs.

    Args:
        path: folder or Hub id.
        checkpoint: what the user wrote, for messages.
        revision: of the Hub.

    Raises:
        UserError: a size beyond all use, a name outside the checkpoint, pickled adapters, code by another name.
    """
    _look_over_model(path, checkpoint, revision)
    for name in (_PREPROCESSOR, _PROCESSOR):
        for reason in _of_preprocessor(_json(path, name, checkpoint, revision)):
            raise UserError(f"{checkpoint}: its {name} {reason}")
    adapter = _json(path, _ADAPTER, checkpoint, revision)
    for reason in _of_adapter(adapter):
        raise UserError(f"{checkpoint}: its {_ADAPTER} {reason}")
    if Path(path).is_dir():
        pickled = (Path(path) / "adapter_model.bin").is_file() and not (Path(path) / _ADAPTER_WEIGHTS).is_file()
    else:
        pickled = bool(adapter) and _of_hub(path, _ADAPTER_WEIGHTS, revision) is None
    if pickled:
        raise UserError(
            f"{checkpoint}: its adapter is pickled (adapter_model.bin), and opening it can run code. Convert it: "
            "`from safetensors.torch import save_file; "
            'save_file(torch.load("adapter_model.bin", weights_only=True), "adapter_model.safetensors")`.'
        )
    if adapter and not Path(path).is_dir():
        _look_over_base(adapter, path, checkpoint, revision)


def _look_over_model(path: str, checkpoint: str, revision: str | None) -> None:
    config = _json(path, _CONFIG, checkpoint, revision)
    for reason in (*_of_config(config), *_of_timm(config)):
        raise UserError(f"{checkpoint}: its {_CONFIG} {reason}")
    for reason in _of_index(_json(path, _INDEX, checkpoint, revision)):
        raise UserError(f"{checkpoint}: its {_INDEX} {reason}")


def _look_over_base(adapter: dict[str, Any], path: str, checkpoint: str, revision: str | None) -> None:
    """The model that an adapter of the Hub names: transformers loads it in place of what lies beside the adapter."""
    base = adapter.get("base_model_name_or_path")
    if base == path:  # a run of this package, which has its base beside it
        return
    if not isinstance(base, str) or not _HUB_ID.fullmatch(base) or Path(base).exists():
        raise UserError(
            f"{checkpoint}: its {_ADAPTER} names {_short(base)} as its base model; that of an adapter of the Hub is "
            "another model of the Hub, and no file or folder of this machine."
        )
    _look_over_model(base, f"{checkpoint}, base model {base}", revision)


def _json(path: str, name: str, checkpoint: str, revision: str | None) -> dict[str, Any]:
    """A file of the checkpoint; empty where there is none, for whoever loads the checkpoint to say."""
    file = Path(path) / name if Path(path).is_dir() else _of_hub(path, name, revision)
    if file is None or not file.is_file():
        return {}
    if file.stat().st_size > _LARGEST_JSON:
        raise UserError(f"{checkpoint}: its {name} has {file.stat().st_size:,} bytes; {_LARGEST_JSON:,} are read.")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as fault:
        raise UserError(f"{checkpoint}: its {name} cannot be read: {fault}") from fault
    if not isinstance(value, dict):
        raise UserError(f"{checkpoint}: its {name} holds no settings by name.")
    return value


def _of_hub(path: str, name: str, revision: str | None) -> Path | None:
    from transformers.utils import cached_file

    found = cached_file(
        path,
        name,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def _of_config(config: dict[str, Any]) -> Iterator[str]:
    for key, value in _walked(config):
        if _COUNTS.search(key) and _largest(value) > _MOST_LAYERS:
            yield f"says {key}={_short(value)}; nets of at most {_MOST_LAYERS:,} layers are built."
        elif key in ("num_labels", "num_classes") and _largest(value) > _MOST_LABELS:
            yield f"says {key}={_short(value)}; at most {_MOST_LABELS:,} labels are taken."
        elif key.endswith("_implementation") and "/" in str(value):
            yield f"wants its {key} from {_short(value)}, which is compiled code of the Hub. Remove it from the file."


def _of_timm(config: dict[str, Any]) -> Iterator[str]:
    architecture, options = config.get("architecture"), config.get("model_args")
    if isinstance(architecture, str) and re.search("[:/\\\\]", architecture):
        yield f"names as its architecture {_short(architecture)}, another repository or folder."
    for key in options if isinstance(options, dict) else ():
        if _OPENING.fullmatch(key):
            yield f"gives model_args.{_short(key)}, which opens other files. Remove it."
    settings = config.get("pretrained_cfg")
    size = settings.get("input_size") if isinstance(settings, dict) else None
    if _largest(size) > _LARGEST_IMAGE:
        yield f"asks for images of {_short(size)} pixels; a side has at most {_LARGEST_IMAGE:,}."


def _of_index(index: dict[str, Any]) -> Iterator[str]:
    shards = index.get("weight_map", {})
    if not isinstance(shards, dict) or len(set(map(str, shards.values()))) > _MOST_SHARDS:
        yield f"lists no shards by the names of weights, or more than {_MOST_SHARDS:,}."
        return
    for name in shards.values():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            yield f"names {_short(name)} among its shards, which is no safetensors file beside it."


def _of_adapter(adapter: dict[str, Any]) -> Iterator[str]:
    for key in ("megatron_config", "layer_replication", "adapters"):  # X-LoRA's others
        if adapter.get(key):
            yield f"sets {key}, which is not taken from a checkpoint. Remove it."
    for key, value in _walked(adapter):
        if key == "r" and _largest(value) > _LARGEST_RANK:
            yield f"says r={_short(value)}; ranks are at most {_LARGEST_RANK:,}."


def _of_preprocessor(settings: dict[str, Any]) -> Iterator[str]:
    """Of an image processor; where it is a part of a processor, that part counts before a file of its own."""
    part = settings.get("image_processor", {})
    for one in (settings, part if isinstance(part, dict) else {}):
        for key in ("size", "crop_size", "pad_size", "image_size"):
            if _largest(one.get(key)) > _LARGEST_IMAGE:
                yield f"makes images of {key}={_short(one[key])}; a side has at most {_LARGEST_IMAGE:,} pixels."


def _walked(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key at any depth with what it holds; names of labels are no settings."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("id2label", "label2id"):
                yield str(key), inner
                yield from _walked(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walked(inner)


def _largest(value: Any) -> float:
    """A number, or the largest inside; 0 where there is none."""
    if isinstance(value, (list, dict)):
        return max((_largest(each) for each in (value.values() if isinstance(value, dict) else value)), default=0)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _short(value: Any) -> str:
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
