"""Finished models: saved so that `pipeline(task, model=folder)` gives the trained predictions, and read back."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from hf_finetune.collector import look_as_usual
from hf_finetune.errors import UserError
from hf_finetune.files import flush
from hf_finetune.model.adapter_files import ADAPTER_FILES, merged, save_adapter, without_adapters
from hf_finetune.model.anatomy import find_anatomy
from hf_finetune.model.checkpoint import LoadedModel, auto_class
from hf_finetune.model.memory_needed import refuse_if_too_large
from hf_finetune.model.multi_task import MultiTaskConfig
from hf_finetune.model.processors import limit_length, load_processor
from hf_finetune.model.quiet import quiet
from hf_finetune.model.sources import commit_of, loading, resolve_checkpoint
from hf_finetune.model.strangers import look_over

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Task

__all__ = ["load_finished", "save_pretrained", "without_adapters"]
_SAVING = ".saving-"


def save_pretrained(
    model: nn.Module,
    processor: Any,
    folder: str | Path,
    *,
    merge: bool = False,
    base: str | None = None,
    revision: str | None = None,
) -> None:
    """Saves a finished model with its processor and label names, for `pipeline`, `from_pretrained` and peft.

    A model with adapters is saved in one of two forms. Merged, it is a plain model. Else the folder holds the
    complete base model, with the task's labels and the trained head, and beside it the adapter: transformers loads
    the two together, and peft's classes load the adapter onto the base checkpoint of the Hub.

    Everything is written to a temporary folder first and flushed to the disk; each file then takes its place in one
    step, config.json last: where that is, all else is there, and whole.

    Args:
        model: a transformers model, or a peft model around one.
        processor: image processor or tokenizer; TimmWrapper's has nothing to save, its settings are in config.json.
        folder: made if it does not exist; other files in it are left alone.
        merge: save adapters merged into the weights.
        base: what the adapter names as its base model: a Hub id. Without one, the folder itself, by its absolute path:
            peft loads it from anywhere, until the folder moves.
        revision: the commit of that base model.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_SAVING}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SAVING, dir=folder) as scratch, quiet():
        if not hasattr(model, "peft_config"):
            _save_plain(model, scratch)  # type: ignore[arg-type]
        elif merge:
            _save_plain(merged(model), scratch)
        else:
            _save_plain(without_adapters(model), scratch)
            save_adapter(model, scratch, base or str(folder.resolve()), revision if base else None)
        processor.save_pretrained(scratch)
        if merge or not hasattr(model, "peft_config"):
            for name in ADAPTER_FILES:  # an earlier adapter would be loaded on top of this model
                (folder / name).unlink(missing_ok=True)
        files = sorted(Path(scratch).iterdir(), key=lambda file: file.name == "config.json")
        for file in files:
            file.chmod(0o666 & ~_umask())  # safetensors writes for the owner alone
            flush(file)
        for file in files:
            if file.name == "config.json":
                flush(folder)  # the names of all others
            file.replace(folder / file.name)
    flush(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _save_plain(model: PreTrainedModel, folder: str) -> None:
    if model.config.model_type != "timm_wrapper":
        model.save_pretrained(folder)
        return
    # So that timm's own `local-dir:` and `hf-hub:` loaders read it too: bare names, and a dictionary in place of null.
    if model.config.model_args is None:
        model.config.model_args = {}
    state = {name.removeprefix("timm_model."): tensor for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)


def load_finished(
    path_or_id: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> LoadedModel:
    """Loads a finished run, or any classification model of the Hub, as it is: no new head.

    Args:
        path_or_id: a folder with config.json, a Hub id, or `package:NAME`.
        revision: commit, tag or branch of a Hub model.
        trust_remote_code: allow the model's own Python code to run; the mlp heads of this package do not need it.

    Raises:
        UserError: there is no such model, or it has no classification head.
    """
    name = str(path_or_id)
    path = resolve_checkpoint(name)
    hub: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with quiet(), loading(name, revision):
        look_over(path, name, revision)
        config = AutoConfig.from_pretrained(path, **hub)
        task = _task_of(config, name)
        auto = AutoModel if isinstance(config, MultiTaskConfig) else auto_class(task)
        refuse_if_too_large(auto, config, name, trust_remote_code=trust_remote_code)
        look_as_usual()
        model, info = auto.from_pretrained(
            path,
            config=config,  # the one that was looked over: else that of an adapter's base model is taken
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **hub,
        )
    lacking = sorted(set(info["missing_keys"]) & {key for key, _ in model.named_parameters()})
    if lacking:
        raise UserError(
            f"{name} has no weights for {', '.join(lacking[:5])}: it is not a finished {task} model. Fine-tune it "
            "first."
        )
    processor = load_processor(path, name, task, **hub)
    limit_length(model, processor)
    return LoadedModel(model.eval(), processor, (), commit_of(path, revision), find_anatomy(model))


def _task_of(config: Any, name: str) -> Task:
    if isinstance(config, MultiTaskConfig):
        return config.modality  # type: ignore[return-value]
    if config.model_type == "timm_wrapper":
        return "image-classification"
    architecture = (config.architectures or [""])[0]
    if "ForImageClassification" in architecture:
        return "image-classification"
    if "ForSequenceClassification" in architecture:
        return "text-classification"
    raise UserError(
        f"{name} is a {architecture or config.model_type} model, without a head for image or text classification. "
        "Fine-tune it first: "
        f"hf-finetune train recipe=NAME model.checkpoint={name}"
    )
