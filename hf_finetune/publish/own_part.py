"""Whose part of a README is whose: ours stands between two marks, everything else is a person's and stays."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import yaml

_BEGIN = "<!-- hf_finetune: written by a program from here (digest {digest}); your own words go above or below -->"
_END = "<!-- hf_finetune: to here -->"
_OURS = re.compile(
    r"<!-- hf_finetune: written by a program from here \(digest (?P<digest>\w+)\)[^\n]*-->\n(?P<body>.*?)\n"
    + re.escape(_END),
    re.DOTALL,
)
_HEADER = re.compile(r"\A---\r?\n(?P<yaml>.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
# Of these a person's word counts for more than ours.
_THEIRS = ("license", "license_name", "license_link")
# A tag of ours that an earlier run may have left.
_KINDS = frozenset(
    (
        *("full", "head", "freeze", "lora", "peft", "bitfit", "norms"),
        *("lp_ft", "gradual", "stages", "features", "scratch"),
    )
)
_STALE = "model-index"  # scores of another run


def marked(body: str) -> str:
    """A text of ours between its marks; the first tells whether somebody has changed it since."""
    return f"{_BEGIN.format(digest=_digest(body))}\n{body}\n{_END}"


@dataclass(frozen=True)
class Merged:
    """A README of ours with a person's words.

    Args:
        text: all of it.
        edited: whether our part had been changed by hand; what it became is kept above the new one.
    """

    text: str
    edited: bool


def merge(new: str, old: str) -> Merged:
    """Our new README with what a person wrote in the old one: above and below our part, and in the metadata.

    Args:
        new: as `model_card` writes it.
        old: as it stands on the Hub or in the run's folder; empty where there is none.
    """
    header, body = _split(new)
    old_header, old_body = _split(old)
    found = _OURS.search(old_body)
    if found is None:
        kept = old_body.strip()
        text, edited = (f"{kept}\n\n{body.strip()}" if kept else body.strip()), False
    else:
        edited = _digest(found["body"]) != found["digest"]
        above, below = old_body[: found.start()].strip(), old_body[found.end() :].strip()
        theirs = found["body"].strip() if edited else ""
        text = "\n\n".join(part for part in (above, theirs, body.strip(), below) if part)
    return Merged(f"---\n{_joined(header, old_header)}---\n\n{text}\n", edited)


def words_of_a_person(text: str) -> bool:
    """Whether a README holds more than our own part."""
    _, body = _split(text)
    found = _OURS.search(body)
    if found is None:
        return bool(body.strip())
    rest = body[: found.start()] + body[found.end() :]
    return bool(rest.strip()) or _digest(found["body"]) != found["digest"]


def only_header(text: str) -> str:
    """The metadata of a README, without its text."""
    found = _HEADER.match(text)
    return found.group() if found else ""


def _split(text: str) -> tuple[dict[str, Any], str]:
    found = _HEADER.match(text)
    if found is None:
        return {}, text
    try:
        header = yaml.safe_load(found["yaml"])
    except yaml.YAMLError:
        return {}, text[found.end() :]
    return header if isinstance(header, dict) else {}, text[found.end() :]


def _digest(body: str) -> str:
    return hashlib.sha256("\n".join(line.rstrip() for line in body.strip().splitlines()).encode()).hexdigest()[:16]


def _joined(new: dict[str, Any], old: dict[str, Any]) -> str:
    """Our metadata with what a person has added: other keys, the licence, more tags."""
    licensed = "license" in old
    joined = {key: value for key, value in new.items() if not (licensed and key in _THEIRS and key not in old)}
    for key, value in old.items():
        if (key not in joined and key != _STALE) or (licensed and key in _THEIRS):
            joined[key] = value
    tags = [tag for tag in old.get("tags") or [] if tag not in _KINDS]
    if "tags" in new:
        joined["tags"] = list(dict.fromkeys([*new["tags"], *tags]))
    return yaml.safe_dump(joined, sort_keys=False, allow_unicode=True, width=1000)
