"""Advice before and after a run: what is the matter with the data."""

from hf_finetune.advice.doctor import examine
from hf_finetune.advice.doctor_report import Report

__all__ = ["Report", "examine"]
