"""`model.max_length`: longer or shorter texts, with position embeddings to match."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model.quiet import quiet
from hf_finetune.model.surgery.rebuild import Patient, rebuild

_TABLES = re.compile(r"(position_embeddings?|wpe)(\.weight)?$")
_LIMIT = "max_position_embeddings"  # GPT-2's n_positions answers to it too
_FEWEST = 8


def set_max_length(patient: Patient, tokenizer: Any, length: int) -> tuple[Patient, str | None]:
    """A model that takes texts of `length` tokens, and a tokenizer that knows.

    A table of absolute positions is cut, or stretched by linear interpolation between its rows (Chen et al. 2023,
    arXiv:2306.15595, do so for rotary angles): every new position lies between two that the model has seen. Families
    with relative or rotary positions take any length as they are.

    Args:
        patient: the model.
        tokenizer: its `model_max_length` is set.
        length: tokens, special ones included.

    Returns:
        model, and what was changed in words (None: nothing).

    Raises:
        UserError: the family's positions cannot be changed, or it cannot run texts of that length.
    """
    key = f"model.max_length={length}"
    if length < _FEWEST:
        raise UserError(f"{key}: texts of fewer than {_FEWEST} tokens hold next to nothing beside special tokens.")
    tables = _tables(patient.net)
    offset = _offset(patient.net)
    limit = getattr(patient.net.config, _LIMIT, None)
    known = limit - offset if isinstance(limit, int) and limit > 0 else None
    before = tokenizer.model_max_length
    how = ""
    if tables:
        rows = length + offset
        if any(table.shape[0] != rows for table in tables.values()):
            patient = _with_rows(patient, rows, offset, key)
            how = ", positions stretched" if known and length > known else ", positions cut"
    elif known is not None and known < length:
        config = copy.deepcopy(patient.net.config)
        setattr(config, _LIMIT, length)
        patient = rebuild(patient, config, key)
    if known is not None and length > known:
        _check_forward(patient, length, key)
    tokenizer.model_max_length = length
    if before == length and not how:
        return patient, None
    was = f"{before} -> " if before < 1_000_000 else ""
    return patient, f"at most {was}{length} tokens{'' if patient.scratch else how}"


def _tables(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: table for name, table in net.named_parameters() if _TABLES.search(name) and table.ndim == 2}


def _offset(net: Any) -> int:
    """Rows before the first position: RoBERTa counts from its padding's index + 1."""
    for name, module in net.named_modules():
        if _TABLES.search(name) and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return int(module.padding_idx) + 1
    return 0


def _with_rows(patient: Patient, rows: int, offset: int, key: str) -> Patient:
    def resize(name: str, old: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
        if not _TABLES.search(name) or shape != (rows, old.shape[1]):
            return None
        return torch.cat([old[:offset], stretched(old[offset:], rows - offset)])

    config = copy.deepcopy(patient.net.config)
    if not isinstance(getattr(config, _LIMIT, None), int):
        raise UserError(f"{key}: the positions of {patient.kind} are fixed in its code. Remove model.max_length.")
    setattr(config, _LIMIT, rows)
    patient = rebuild(patient, config, key, resize=resize)
    if any(table.shape[0] != rows for table in _tables(patient.net).values()):
        raise UserError(f"{key}: the positions of {patient.kind} do not follow its configuration. Remove it.")
    return patient


def stretched(rows: torch.Tensor, length: int) -> torch.Tensor:
    """Rows (positions, width) cut to `length`, or stretched to it so that the first and the last stay what they are."""
    if length <= len(rows):
        return rows[:length]
    long = nn.functional.interpolate(rows.T.unsqueeze(0), size=length, mode="linear", align_corners=True)
    return long[0].T


def _check_forward(patient: Patient, length: int, key: str) -> None:
    """One text of that length through the model."""
    net: Any = patient.net
    modes = {module: module.training for module in net.modules()}
    ids = torch.full((1, length), 1 if net.config.pad_token_id != 1 else 2)
    try:
        with torch.no_grad(), quiet():
            net.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as fault:
        raise UserError(
            f"{key}: {patient.kind} of {patient.checkpoint} does not take texts of that length ({fault}). Remove it, "
            "or use data.long_text=windows."
        ) from fault
    finally:
        for module, mode in modes.items():
            module.training = mode
