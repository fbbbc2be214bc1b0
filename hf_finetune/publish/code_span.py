"""Names from data, in Markdown as they stand."""

from __future__ import annotations

import re


def code(name: object) -> str:
    """A code span of one line in which nothing of a name is Markdown or HTML (CommonMark 0.31, section 6.1)."""
    text = " ".join(str(name).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    # A backtick at an end would join the fence; one space at both ends is not shown.
    space = " " if not text or "`" in (text[0], text[-1]) else ""
    return f"{fence}{space}{text}{space}{fence}"
