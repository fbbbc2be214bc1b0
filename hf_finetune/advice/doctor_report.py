"""What the doctor says: short sections for people, the same facts as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

SHOWN = 10  # rows, classes or columns named in the printed report; the JSON names all


@dataclass
class Section:
    """One subject of the report.

    Args:
        title: a few words.
        lines: what was found.
        advice: what to do about it; nothing where nothing is wrong.
        facts: the same in full, plain values.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add_rows(self, lines: list[str]) -> None:
        """The first ten of many lines, and how many more there are."""
        self.lines += [f"  {line}" for line in lines[:SHOWN]]
        if len(lines) > SHOWN:
            self.lines.append(f"  ... and {len(lines) - SHOWN:,} more (--json FILE lists all)")


@dataclass
class Report:
    """What the doctor found.

    Args:
        head: what was looked at.
        sections: by subject.
    """

    head: str
    sections: list[Section]

    def in_words(self) -> str:
        """The printed report."""
        pages = [self.head]
        for section in self.sections:
            body = [*(f"  {line}" for line in section.lines), *(f"  -> {line}" for line in section.advice)]
            pages.append("\n".join([section.title, *body]))
        findings = sum(len(section.advice) for section in self.sections)
        pages.append(f"{findings} suggestion{'' if findings == 1 else 's'} (->)." if findings else "Nothing is amiss.")
        return "\n\n".join(pages)

    def as_json(self) -> str:
        """{"SECTION": {...facts, "advice": [...]}}."""
        facts = {section.title: {**section.facts, "advice": section.advice} for section in self.sections}
        return json.dumps(facts, indent=2, ensure_ascii=False, default=str) + "\n"

    def __getitem__(self, title: str) -> Section:
        return next(section for section in self.sections if section.title == title)


def count(number: int, one: str, several: str | None = None) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def spread(values: Any) -> str:
    """`min 12, median 30, max 400`."""
    import numpy as np

    return f"min {np.min(values):g}, median {np.median(values):g}, max {np.max(values):g}"


def row_name(split: str, row: int, path: str | None = None, text: str | None = None) -> str:
    """A row as people find it again: split, number, and its file or the beginning of its text."""
    if path:
        return f"{split} row {row} ({path})"
    if text:
        words = " ".join(text.split())
        return f'{split} row {row} "{words[:60]}{"..." if len(words) > 60 else ""}"'
    return f"{split} row {row}"
