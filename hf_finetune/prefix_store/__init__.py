"""Features on disk, under the Hugging Face home: found by key, checked, listed, cleared; whole or not there."""

from __future__ import annotations

from hf_finetune.prefix_store.entry import (
    Entry,
    Found,
    Meta,
    abandon,
    begin,
    checksum,
    drop,
    entries,
    find,
    finish,
    home,
    known,
    lock_of,
    mapped,
    partial,
    stays,
    whole,
)
from hf_finetune.prefix_store.locks import release
from hf_finetune.prefix_store.room import Cleared, bound, clear, free_bytes, make_room, room, total

__all__ = [
    "Cleared",
    "Entry",
    "Found",
    "Meta",
    "abandon",
    "begin",
    "bound",
    "checksum",
    "clear",
    "drop",
    "entries",
    "find",
    "finish",
    "free_bytes",
    "home",
    "known",
    "lock_of",
    "make_room",
    "mapped",
    "partial",
    "release",
    "room",
    "stays",
    "total",
    "whole",
]
