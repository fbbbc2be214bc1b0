"""Advice before and after a run: what is the matter with the data, what several runs tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_finetune.advice.doctor import examine
    from hf_finetune.advice.doctor_report import Report

__all__ = ["Report", "examine"]


def __getattr__(name: str) -> Any:
    # Late: a command of many runs names its faults before torch is imported.
    if name == "examine":
        from hf_finetune.advice.doctor import examine

        return examine
    if name == "Report":
        from hf_finetune.advice.doctor_report import Report

        return Report
    raise AttributeError(f"module 'hf_finetune.advice' has no attribute {name!r}")
