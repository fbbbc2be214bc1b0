"""`model.drop_blocks`: a shallower model from some of the checkpoint's blocks."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from hf_finetune.errors import UserError
from hf_finetune.model.anatomy import find_anatomy
from hf_finetune.model.families import layout_of
from hf_finetune.model.surgery.rebuild import Patient, is_timm, rebuild, timm_accepts, timm_config

_LIST_KEYS = ("layer_types",)  # one entry a block


def drop_blocks(patient: Patient, which: int | Sequence[int]) -> tuple[Patient, str]:
    """Removes blocks; the others keep their weights and close ranks (Sajjad et al. 2020, arXiv:2004.03844).

    Args:
        patient: the model.
        which: how many from the top, or the numbers of those to remove, counted from 1 at the stem.

    Raises:
        UserError: there are not so many blocks, the family's depth is not in its configuration, or what is left
            does not fit together.
    """
    names = block_names(patient)
    numbers = list(range(len(names) - which + 1, len(names) + 1)) if isinstance(which, int) else sorted(which)
    key = f"model.drop_blocks={which if isinstance(which, int) else list(which)}"
    _check_numbers(numbers, len(names), key, patient)
    kept = [name for number, name in enumerate(names, 1) if number not in numbers]
    renamed = _close_ranks(names, kept, patient, key)  # new name -> old name
    removed = [f"{name}." for name in names if name not in kept]

    def old_name(name: str) -> str:
        for new, old in renamed.items():
            if name.startswith(f"{new}."):
                return old + name[len(new) :]
        return name

    config = _config(patient, names, kept, key)
    try:
        result = rebuild(patient, config, key, old_name=old_name)
        used = {old_name(name) for name in result.net.state_dict()}
    except UserError as fault:
        raise _does_not_fit(numbers, patient, key, str(fault)) from fault
    lost = [name for name in patient.net.state_dict() if name not in used and not name.startswith(tuple(removed))]
    if lost:
        raise _does_not_fit(numbers, patient, key, f"{lost[0]} would be lost")
    return result, f"{len(numbers)} of {len(names)} blocks removed ({', '.join(map(str, numbers))})"


def block_names(patient: Patient) -> list[str]:
    """Names of the modules that are the blocks, in order."""
    layout = layout_of(patient.net)
    names = []
    for block in find_anatomy(patient.net, patient.fresh).blocks:
        own = [name for name in block.modules if layout.block(name) == name]
        names += own[:1]
    return names


def _check_numbers(numbers: Sequence[int], count: int, key: str, patient: Patient) -> None:
    have = f"{patient.checkpoint} has {count} {'block' if count == 1 else 'blocks'}"
    if len(numbers) >= count:
        most = f"Remove at most {count - 1}." if count > 1 else "Remove model.drop_blocks."
        raise UserError(f"{key}: {have}, and at least one must stay. {most}")
    if numbers[0] < 1 or numbers[-1] > count:
        raise UserError(f"{key}: {have}. Give numbers from 1 (at the stem) to {count}.")


def _close_ranks(names: Sequence[str], kept: Sequence[str], patient: Patient, key: str) -> dict[str, str]:
    """New names of the kept blocks, each with its old one: numbers within a list have no gaps."""
    if not all(re.fullmatch(r".+\.\d+", name) for name in names) or not layout_of(patient.net).tested:
        raise _fixed(patient, key)
    renamed: dict[str, str] = {}
    for stage in _stages(names):
        staying = [name for name in kept if _stage(name) == stage]
        renamed |= {f"{stage}.{place}": name for place, name in enumerate(staying)}
    if patient.net.config.model_type == "swin":
        moved = [old for new, old in renamed.items() if (_number(new) - _number(old)) % 2]
        if moved:
            raise UserError(
                f"{key}: Swin's blocks alternate between plain and shifted windows, and {moved[0]} would change from "
                "one to the other. Remove neighbours in pairs, or the last of a stage."
            )
    return renamed


def _config(patient: Patient, names: Sequence[str], kept: Sequence[str], key: str) -> Any:
    stages = _stages(names)
    counts = [sum(_stage(name) == stage for name in kept) for stage in stages]
    net = patient.net
    if is_timm(net):
        if len(stages) == 1 and timm_accepts(net, "depth"):
            return timm_config(net, depth=counts[0])
        argument = next((name for name in ("layers", "depths") if timm_accepts(net, name)), None)
        if len(stages) > 1 and argument:
            _check_stages(patient, stages, counts, key)
            return timm_config(net, **{argument: counts})
        raise _fixed(patient, key)
    config = copy.deepcopy(net.config)
    if len(stages) == 1 and getattr(config, "num_hidden_layers", None) == len(names):
        config.num_hidden_layers = counts[0]
        for place in _LIST_KEYS:
            values = getattr(config, place, None) or ()
            if len(values) == len(names):
                setattr(config, place, [each for each, name in zip(values, names, strict=True) if name in kept])
        if hasattr(config, "set_output_features_output_indices") and len(config.stage_names) == len(names) + 1:
            config.stage_names = config.stage_names[: len(kept) + 1]
            config.set_output_features_output_indices(out_features=None, out_indices=None)
        return config
    if len(getattr(config, "depths", None) or ()) == len(stages) > 1:
        _check_stages(patient, stages, counts, key)
        config.depths = counts
        return config
    raise _fixed(patient, key)


def _check_stages(patient: Patient, stages: Sequence[str], counts: Sequence[int], key: str) -> None:
    if 0 in counts:
        raise UserError(
            f"{key}: that removes all blocks of {stages[counts.index(0)]}, and a stage of {patient.kind} needs one: "
            "it changes the images' size and channels. Remove fewer blocks, or list others."
        )


def _fixed(patient: Patient, key: str) -> UserError:
    return UserError(
        f"{key}: the number of blocks of {patient.kind} is fixed in its code, or each has its own shape, so that a "
        "model with fewer could not be saved. Remove model.drop_blocks; transformers' encoders, ViTs and ResNets take "
        "it."
    )


def _does_not_fit(numbers: Sequence[int], patient: Patient, key: str, why: str) -> UserError:
    return UserError(
        f"{key}: without {'block' if len(numbers) == 1 else 'blocks'} {', '.join(map(str, numbers))} the others of "
        f"{patient.checkpoint} do not fit together, since one of these changes the shape of what passes it, or holds "
        f"what all need ({why}). List other blocks."
    )


def _stages(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(_stage(name) for name in names))


def _stage(name: str) -> str:
    return name.rpartition(".")[0]


def _number(name: str) -> int:
    return int(name.rpartition(".")[2])
