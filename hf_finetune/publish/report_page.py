"""The page from what is known of its runs: template, style and script put into one file, names and texts inert."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hf_finetune.console import warn

_FOLDER = Path(__file__).parent / "templates"
LIMIT = 5_000_000  # bytes: more is too much for a page that is mailed and opened on a phone


def render(runs: Sequence[dict[str, Any]], compared: dict[str, Any] | None) -> str:
    """The whole page.

    Text from data and labels is escaped by the template; a policy in the page's head lets no script run but its own
    and lets nothing be loaded. Where it would be too large, every gallery is halved until it is not; if even that is
    not enough, a warning says so.

    Args:
        runs: from `report_view.view_of`.
        compared: from `report_compare.compared`, where there are several.
    """
    page = _rendered(runs, compared)
    most = max((len(g["items"]) for run in runs for t in run["tasks"] if t["gallery"] for g in t["gallery"]["groups"]),
               default=0)  # fmt: skip
    while len(page.encode()) > LIMIT and most > 0:
        most //= 2
        for run in runs:
            for task in run["tasks"]:
                for group in (task["gallery"] or {"groups": []})["groups"]:
                    group["items"] = group["items"][:most]
        page = _rendered(runs, compared)
    if (size := len(page.encode())) > LIMIT:
        warn(
            f"the page is large, {size / 1e6:.1f} MB: even without samples there is more of names and tables than "
            f"{LIMIT / 1e6:.0f} MB hold. Fewer runs side by side make a smaller one."
        )
    return page


@cache
def _template(name: str) -> Any:
    """To compile it takes longer than to draw a page of it."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(name)


def filled(name: str, **values: Any) -> str:
    """A template with its values, our style and our script.

    Args:
        name: of the template.
        values: that it names.
    """
    from markupsafe import Markup

    style, script = ((_FOLDER / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    # Both are our own files, the only text that goes in unescaped beside the charts, which escape for themselves.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page: str = _template(name).render(style=Markup(style), script=Markup(script), digest=digest, **values)
    return page.lstrip()


def _rendered(runs: Sequence[dict[str, Any]], compared: dict[str, Any] | None) -> str:
    title = " · ".join(run["name"] for run in runs)
    sections = _sections(runs, compared)
    return filled("report.html", runs=runs, compared=compared, title=title, sections=sections, made=runs[0]["made"])


def _sections(runs: Sequence[dict[str, Any]], compared: dict[str, Any] | None) -> list[tuple[str, str]]:
    if compared:
        return [("scores", "Scores"), *([("curves", "Learning")] if compared["figures"] else []),
                ("settings", "What differs")]  # fmt: skip
    run = runs[0]
    found = [("score", "Score")]
    found += [("curves", "Learning")] if run["figures"] else []
    found += [(f"task{place + 1}", task["name"] or "Test split") for place, task in enumerate(run["tasks"])]
    found += [("how", "How")]
    found += [("data", "Data")] if run["data"]["rows"] else []
    return [*found, ("recipe", "Recipe")]
