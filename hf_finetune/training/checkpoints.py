"""Resumable checkpoints that are whole or not there.

transformers writes a checkpoint file by file into its final folder and takes the highest number as the newest, torn or
not (FACTS: killed in the middle of writing, every resume fails or goes on with other weights). Here a checkpoint is
written beside its place, sealed with the checksums of its files, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.console import say, warn
from hf_finetune.errors import UserError
from hf_finetune.files import flush
from hf_finetune.model.adapter_files import changed_at_start
from hf_finetune.strategy.frozen import ever_learning

if TYPE_CHECKING:
    import torch
    from torch import nn

SEAL = "sealed.json"
WEIGHTS = "weights.safetensors"


def step_of(checkpoint: Path) -> int:
    """The number of optimizer steps behind a checkpoint folder's name, -1 for another name."""
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match.group(1)) if match else -1


def seal(staging: Path, final: Path) -> None:
    """Write the checksums of a finished checkpoint, flush everything to disk, and rename it into place."""
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    sums = {str(path.relative_to(staging)): _checksum(path) for path in files}
    (staging / SEAL).write_text(json.dumps(sums, indent=1))
    folders = [path for path in staging.rglob("*") if path.is_dir()]
    for path in [*files, staging / SEAL, *folders, staging]:
        flush(path)
    if final.exists():
        shutil.rmtree(final)
    staging.rename(final)
    flush(final.parent)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in words, or None when every file is as it was written."""
    try:
        sums: dict[str, str] = json.loads((checkpoint / SEAL).read_text())
    except (OSError, ValueError):
        return f"{SEAL} is missing or unreadable"
    for name, expected in sums.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if _checksum(path) != expected:
            return f"{name} has changed since it was written"
    return None


def newest_whole(folder: Path) -> Path | None:
    """The newest undamaged checkpoint; damaged ones are named in a warning and passed over."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if step_of(checkpoint) < 0:
            continue
        fault = damage(checkpoint)
        if fault is None:
            return checkpoint
        warn(f"{checkpoint} is damaged ({fault}); the one before it is taken.")
    return None


def newest_step(folder: Path) -> int:
    """The highest step of any checkpoint, whole or not; -1 where there is none."""
    return max((step_of(path) for path in folder.glob("checkpoint-*")), default=-1)


def set_aside(folder: Path, step: int) -> None:
    """Checkpoints behind the one that is continued from belong to another future; they are kept under another name.

    Damaged ones too: under their own they would count as the newest, and the one that is written next would go.

    Args:
        folder: of the checkpoints.
        step: that is continued from; -1 where none is whole and the run begins anew.
    """
    why = "lies ahead of the checkpoint that this run continues from" if step >= 0 else "is damaged"
    for path in list(folder.glob("checkpoint-*")):
        if step_of(path) > step:
            aside = next(free for n in range(1, 1000) if not (free := path.with_name(f"left-{n}-{path.name}")).exists())
            path.rename(aside)
            say(f"{path.name} {why}; it is kept as {aside.name}.")


def digest_of_frozen(model: nn.Module) -> str:
    """Checksum of the weights that checkpoints leave out, because the pretrained checkpoint has them; "" for none."""
    import torch

    learned = _changing(model)
    digest, found = hashlib.sha256(), False
    for name, parameter in model.named_parameters():
        if name not in learned:
            found = True
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest() if found else ""


def rotate(folder: Path, keep: int | None, needed: Collection[int | None]) -> None:
    """Delete old checkpoints but the newest `keep`, never those of the needed steps or the newest one."""
    if not keep:
        return
    ordered = sorted((path for path in folder.glob("checkpoint-*") if step_of(path) >= 0), key=step_of)
    protected = {path for path in ordered if step_of(path) in needed} | set(ordered[-1:])
    surplus = max(0, len(ordered) - max(keep, len(protected)))
    for path in [path for path in ordered if path not in protected][:surplus]:
        shutil.rmtree(path)


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write what can have changed: parameters that learn in any stage, and buffers (BatchNorm statistics).

    Frozen parameters come again from the pinned pretrained checkpoint, so that a head's checkpoint is small.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in _changing(model).items()}
    save_file(tensors, str(folder / WEIGHTS), metadata={"format": "pt"})


def load_weights(model: nn.Module, folder: Path) -> None:
    """Put a checkpoint's weights back, strictly: a missing or surplus tensor is an error, never a warning.

    transformers loads the saved file with `strict=False`, and for ViT, DeiT, BEiT, DINOv2 and Swin the saved names are
    not the module's, so that nothing is restored (transformers issue 43701).
    """
    import torch
    from safetensors.torch import load_file

    stored = load_file(str(folder / WEIGHTS))
    live = _changing(model)
    if stored.keys() != live.keys():
        different = sorted(stored.keys() ^ live.keys())
        raise UserError(
            f"{folder} does not fit this model: {len(different)} tensors differ, first {different[0]}. "
            "It was written by another recipe or version: give another output_dir."
        )
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(stored[name])


def _changing(model: nn.Module) -> dict[str, torch.Tensor]:
    persistent = set(model.state_dict(keep_vars=True))
    moved = changed_at_start(model)
    learning = ever_learning(model)
    learned = {name: value for name, value in model.named_parameters() if name in learning or name in moved}
    return learned | {name: buffer for name, buffer in model.named_buffers() if name in persistent}


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
