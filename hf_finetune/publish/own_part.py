"""Whose part of a README is whose: ours stands between two marks, everything else is a person's and stays."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import yaml

_BEGIN = "<!-- hf_finetune: written by a program from here (digest {digest}); your own words go above or below -->"
_END = "<!-- hf_finetune: to here -->"
_OURS = re.compile(
    r"<!-- hf_finetune: written by a program from here \(digest (?P<digest>\w+)\)[^\n]*-->\n(?P<body>.*?)\n"
    + re.escape(_END)
    + r"(?:\n<!-- hf_finetune: record (?P<record>\{[^\n]*\}) -->)?",
    re.DOTALL,
)
# What we wrote: digests of the metadata, so that a later push can tell a person's word from ours; the files we pushed.
_RECORD = "<!-- hf_finetune: record {record} -->"
_HEADER = re.compile(r"\A---\r?\n(?P<yaml>.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
# These go together: a person's licence is taken as it stands.
_LICENCE = ("license", "license_name", "license_link")
# A tag of ours that an earlier run may have left.
_KINDS = frozenset(
    (
        *("full", "head", "freeze", "lora", "peft", "bitfit", "norms"),
        *("lp_ft", "gradual", "stages", "features", "scratch"),
    )
)
_STALE = "model-index"  # scores of another run
# What we write, where a README tells no record of it.
_WRITTEN = ("library_name", "pipeline_tag", "base_model", "base_model_relation", "datasets", "metrics")


def marked(body: str) -> str:
    """A text of ours between its marks; the first tells whether somebody has changed it since."""
    return f"{_BEGIN.format(digest=_digest(body))}\n{body}\n{_END}"


def recorded(text: str, files: Collection[str] = ()) -> str:
    """A README of ours, before any merging, with a record of its metadata and of the files that go with it."""
    header, _ = _split(text)
    metadata = {key: _value_digest(value) for key, value in header.items()}
    record = json.dumps({"metadata": metadata, "files": sorted(files)}, ensure_ascii=True)
    found = _OURS.search(text)
    assert found is not None
    whole = text[found.start() : found.end("body")] + f"\n{_END}\n{_RECORD.format(record=record)}"
    return text[: found.start()] + whole + text[found.end() :]


def files_of(text: str) -> frozenset[str]:
    """The files that went with a README, as its record tells; none where there is no record."""
    return frozenset(name for name in _record(text).get("files", ()) if isinstance(name, str))


def _record(text: str) -> dict[str, Any]:
    found = _OURS.search(text)
    try:
        record: dict[str, Any] = json.loads(found["record"]) if found and found["record"] else {}
    except ValueError:
        return {}
    whole = isinstance(record.get("metadata"), dict) and isinstance(record.get("files"), list)
    return record if whole else {}  # a person may have changed it


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
    _, old_body = _split(old)
    new = with_metadata(new, old)
    _, body = _split(new)
    found = _OURS.search(old_body)
    if found is None:
        kept = old_body.strip()
        text, edited = (f"{kept}\n\n{body.strip()}" if kept else body.strip()), False
    else:
        edited = _digest(found["body"]) != found["digest"]
        above, below = old_body[: found.start()].strip(), old_body[found.end() :].strip()
        theirs = found["body"].strip() if edited else ""
        text = "\n\n".join(part for part in (above, theirs, body.strip(), below) if part)
    return Merged(f"{_only_header(new)}\n{text}\n", edited)


def with_metadata(new: str, old: str) -> str:
    """Our new README with a person's metadata of the old one, and not its words."""
    header, body = _split(new)
    theirs = _of_a_person(old)
    gone = set(_LICENCE) - set(theirs) if set(theirs) & set(_LICENCE) else set()
    kept = {key: value for key, value in header.items() if key not in gone}
    joined = kept | {key: value for key, value in theirs.items() if key != "tags"}
    if tags := [*header.get("tags", ()), *theirs.get("tags", ())]:
        joined["tags"] = list(dict.fromkeys(tags))
    dumped = yaml.safe_dump(joined, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{dumped}---\n\n{body.strip()}\n"


def words_of_a_person(text: str) -> bool:
    """Whether a README holds more than our own part."""
    _, body = _split(text)
    found = _OURS.search(body)
    if found is None:
        return bool(body.strip())
    rest = body[: found.start()] + body[found.end() :]
    return bool(rest.strip()) or _digest(found["body"]) != found["digest"]


def _only_header(text: str) -> str:
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


def _value_digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _of_a_person(text: str) -> dict[str, Any]:
    """The metadata that a person wrote or changed: all but what we wrote and nobody has touched since."""
    header, body = _split(text)
    ours: dict[str, str] = _record(text).get("metadata", {})
    if not ours and _OURS.search(body):
        ours = {key: _value_digest(header[key]) for key in _WRITTEN if key in header}
    theirs = {key: value for key, value in header.items() if key != _STALE and ours.get(key) != _value_digest(value)}
    if set(theirs) & set(_LICENCE):
        theirs |= {key: header[key] for key in _LICENCE if key in header}
    if "tags" in theirs:
        tags = theirs["tags"] if isinstance(theirs["tags"], list) else [theirs["tags"]]
        theirs["tags"] = [tag for tag in tags if tag not in _KINDS]
    return theirs
