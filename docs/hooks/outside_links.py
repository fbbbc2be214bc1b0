"""Links of the pages to files of the repository (`../recipes/beans.yaml`): the file is put into the site, in files/."""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

_LINK = re.compile(r"(?<=\]\()(\.\./[^)\s#]+)")


def _outside(page: str, link: str) -> str:
    """The linked file's place in the repository, where that is outside docs/; else nothing."""
    place = normpath(f"docs/{dirname(page)}/{link}")
    return "" if place.startswith(("docs/", "..")) else place


def on_files(files: Files, config: Any) -> Files:
    """Adds every linked file that lies outside docs/."""
    root = Path(config["config_file_path"]).parent
    wanted: set[str] = set()
    for page in files.documentation_pages():
        links = _LINK.findall(Path(str(page.abs_src_path)).read_text(encoding="utf-8"))
        wanted |= {place for link in links if (place := _outside(page.src_uri, link))}
    for place in sorted(wanted):
        if (root / place).is_file() and not place.endswith(".md"):
            files.append(File.generated(config, f"files/{place}", abs_src_path=str(root / place)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Points those links to where the files lie in the site."""
    here = dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        place = _outside(page.file.src_uri, match[1])
        return relpath(f"files/{place}", here or ".") if place else match[1]

    return _LINK.sub(moved, markdown)
