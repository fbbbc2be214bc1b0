"""The fenced blocks of README.md and docs/, and a way to run a page from top to bottom in one folder.

In a page, an HTML comment before a block says how the test runs it:

    <!-- test: training.num_train_epochs=1 -->     these words are added to each training command of the block
    <!-- test: skip: needs several GPUs -->         it is not run, for this reason
    <!-- test: exit 2 -->                           its commands end with this code
    <!-- page: real -->  <!-- page: hub -->         the whole page needs hf_home, or a Hub: here the one on loopback

`{text}` in added words is a tiny BERT.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted(page.relative_to(REPOSITORY).as_posix() for page in (REPOSITORY / "README.md", *DOCS.rglob("*.md")))
_BLOCK = re.compile(r"(?:^<!-- test: (?P<rule>.*?) -->\n)?^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$", re.M | re.S)
RUN = ("bash", "console", "sh", "python")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        language: what stands behind the fence.
        body: its lines.
        rule: of the comment before it.
    """

    language: str
    body: str
    rule: str

    @property
    def skipped(self) -> bool:
        return self.rule.startswith("skip: ")

    @property
    def code(self) -> int:
        """With which its commands end."""
        return int(self.rule.removeprefix("exit ")) if self.rule.startswith("exit ") else 0

    @property
    def added(self) -> list[str]:
        return [] if self.skipped or self.rule.startswith("exit ") else shlex.split(self.rule)

    @property
    def commands(self) -> list[str]:
        """One a line, as they stand; a line that ends in a backslash goes on."""
        lines = self.body.replace("\\\n", " ").splitlines()
        lines = [line.removeprefix("$ ") for line in lines if self.language != "console" or line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.startswith("#")]


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = _BLOCK.finditer(text_of(page))
    return [Block(match["language"], match["body"], match["rule"] or "") for match in found]


def needs(page: str) -> str:
    """`real`, `hub`, or nothing."""
    said = re.search(r"^<!-- page: (\w+) -->$", text_of(page), re.M)
    return said[1] if said else ""


def tutorials() -> Iterator[str]:
    """Pages with something that is run."""
    for page in PAGES:
        if any(block.language in RUN and not block.skipped for block in blocks(page)):
            yield page


def lengthened(command: str, added: list[str]) -> str:
    """A training command with the words that a comment adds; any other as it is."""
    trains = re.search(r"(hf-finetune|hf_finetune\S*) (train|doctor|search|recipe=)", command)
    if not (trains and added):
        return command
    keys = [word.partition("=")[0] for word in added]
    kept = [word for word in command.split(" ") if word.partition("=")[0] not in keys]
    return " ".join([*kept, *(shlex.quote(word) for word in added)])


def run_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line as it stands, in a folder where the repository's own folders are."""
    for name in ("hf_finetune", "accelerate_configs", "recipes"):
        if not (folder / name).exists():
            (folder / name).symlink_to(REPOSITORY / name)
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": binaries, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )


def run_page(
    page: str,
    folder: Path,
    places: dict[str, str],
    verb: Callable[..., tuple[int, str]],
    python: Callable[[str], None],
) -> int:
    """Every block of a page, in order.

    Args:
        page: relative to the repository.
        folder: in which its commands run.
        places: what stands for `{name}` in the words that comments add.
        verb: runs `hf-finetune` with these words; its code and what it said.
        python: runs a block of Python.

    Returns:
        how many commands and blocks were run.
    """
    count = 0
    for block in blocks(page):
        if block.skipped or block.language not in RUN:
            continue
        if block.language == "python":
            python(block.body)
            count += 1
            continue
        for line in block.commands:
            command = lengthened(line, [word.format(**places) if word[0] != "{" else word for word in block.added])
            if re.match(r"hf-finetune [\w-]+ [^|;&>]*$", command):
                code, said = verb(*shlex.split(command, comments=True)[1:])
            else:
                done = run_shell(command, folder)
                code, said = done.returncode, done.stdout + done.stderr
            assert code == block.code, f"{page}: {command}\nended with {code}\n{said}"
            count += 1
    return count
