"""Muon for the hidden matrices, AdamW for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon and AdamW over shared parameter groups, so that schedulers, checkpoints and resuming see one.

    Args:
        groups: each with "params", "lr", "weight_decay" and "use_muon".
        muon: further arguments of torch.optim.Muon.
        adamw: further arguments of torch.optim.AdamW.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon. The step has AdamW's size (arXiv:2502.16982), so that
    both halves take the same rate and weight decay.
    """

    def __init__(self, groups: list[dict[str, Any]], muon: dict[str, Any], adamw: dict[str, Any]) -> None:
        super().__init__(groups, {})
        # These keep the very dictionaries of `self.param_groups`, and add their own settings to them.
        halves = [(True, torch.optim.Muon, muon), (False, torch.optim.AdamW, adamw)]
        self._halves: list[tuple[bool, torch.optim.Optimizer]] = [
            (flag, kind([group for group in self.param_groups if group["use_muon"] is flag], **options))
            for flag, kind, options in halves
            if any(group["use_muon"] is flag for group in self.param_groups)
        ]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of both."""
        loss = None if closure is None else closure()
        for flag, half in self._halves:
            # Loading a checkpoint replaces groups and state: link them again.
            half.param_groups = [group for group in self.param_groups if group["use_muon"] is flag]
            half.state = self.state
            half.step()
        return loss


def split_for_muon(groups: list[dict[str, Any]], matrices: set[int]) -> list[dict[str, Any]]:
    """Parameter groups divided into those for Muon and those for AdamW.

    Args:
        groups: each with "params" and anything else, which is kept.
        matrices: ids of the parameters for Muon.
    """
    found = []
    for group in groups:
        for flag in (True, False):
            params = [parameter for parameter in group["params"] if (id(parameter) in matrices) is flag]
            if params:
                name = f"{group['name']}, muon" if flag and "name" in group else group.get("name")
                found.append(group | {"params": params, "use_muon": flag} | ({"name": name} if name else {}))
    return found
