"""The hostile corpus: what a stranger may put on the Hub, each case made in a folder and given to the command line.

A case says what `hf-finetune` must answer. Whatever it carries tries to make the file CANARY beside itself; nothing
may. `python tests/faults/hostile.py` runs all of them in one process and writes time and memory to
benchmarks/results/faults_hostile.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CANARY = "canary.txt"
LIMIT_SECONDS, LIMIT_BYTES = 60, 4 * 2**30
HUB_REPO = "them/evil"


@dataclass(frozen=True)
class Case:
    """One attack.

    Args:
        name: what it is.
        make: fills a folder, and gives the words of the command line behind `hf-finetune`.
        words: must be in the answer; any of them where several are given.
        code: of the exit; None for any, where the attack is to be survived, not refused.
    """

    name: str
    make: Callable[[Path], list[str]]
    words: tuple[str, ...]
    code: int | None = 2

    def __repr__(self) -> str:
        return self.name


def payload(folder: Path) -> str:
    """Python that tells that it ran."""
    return f"open({str(folder / CANARY)!r}, 'w').write('executed')"


class Runs:
    """What pickles of the corpus hold: unpickling it makes the canary."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return exec, (payload(self.folder),)


@contextlib.contextmanager
def hub_cache(folder: Path) -> Iterator[None]:
    """The client of the Hub, offline, looks into this folder's `hub`."""
    from huggingface_hub import constants

    before, constants.HF_HUB_CACHE = constants.HF_HUB_CACHE, str(folder / "hub")
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = before


def on_hub(folder: Path, files: dict[str, str], repo: str = HUB_REPO) -> None:
    """A repository in the cache, as huggingface_hub lays it out."""
    root = folder / "hub" / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("a" * 40)
    for name, content in files.items():
        (snapshot / name).write_text(content)


@dataclass(frozen=True)
class Answer:
    """What the command line did: exit code, everything it said, seconds."""

    code: int
    said: str
    seconds: float


def attack(case: Case, folder: Path) -> Answer:
    """Make a case in an empty folder and give it to the command line, in this process and in that folder."""
    from hf_finetune.cli import main

    words = case.make(folder)
    out, before, began = io.StringIO(), Path.cwd(), time.perf_counter()
    os.chdir(folder)
    try:
        with hub_cache(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                code = main(words)
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else 1
    finally:
        os.chdir(before)
    return Answer(code, out.getvalue(), time.perf_counter() - began)


def verdict(case: Case, folder: Path, answer: Answer) -> str | None:
    """What went wrong, or None where the attack came to nothing."""
    if (folder / CANARY).exists():
        return "it was executed"
    if "Traceback" in answer.said:
        return f"a traceback: {answer.said[-500:]}"
    if case.code is not None and answer.code != case.code:
        return f"exit code {answer.code}: {answer.said[-500:]}"
    if case.words and not any(words in answer.said for words in case.words):
        return f"none of {case.words} in: {answer.said[-800:]}"
    if answer.seconds > LIMIT_SECONDS:
        return f"{answer.seconds:.0f} s"
    if (peak := peak_bytes()) > LIMIT_BYTES:
        return f"{peak / 2**30:.1f} GiB"
    return None


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def corpus() -> list[Case]:
    """All cases that go through the command line."""
    from faults.hostile_checkpoints import CHECKPOINTS
    from faults.hostile_data import DATA
    from faults.hostile_recipes import RECIPES

    return [*RECIPES, *CHECKPOINTS, *DATA]


def main() -> int:
    """Run the corpus; the exit code is the number of cases that were not held."""
    import tempfile
    import traceback

    results, failed = [], 0
    for case in corpus():
        with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
            try:
                answer = attack(case, Path(scratch))
                wrong = verdict(case, Path(scratch), answer)
            except Exception:
                answer, wrong = Answer(-1, "", 0.0), traceback.format_exc()[-500:]
        failed += wrong is not None
        results.append({"case": case.name, "code": answer.code, "seconds": round(answer.seconds, 3), "wrong": wrong})
        print(f"{answer.seconds:7.2f} s  {'HELD' if wrong is None else 'NOT HELD'}  {case.name}  {wrong or ''}")
    slowest = max(results, key=lambda one: one["seconds"])
    figures = {
        "cases": len(results),
        "held": len(results) - failed,
        "slowest_seconds": slowest["seconds"],
        "slowest": slowest["case"],
        "peak_gib": round(peak_bytes() / 2**30, 2),
        "by_case": results,
    }
    out = REPOSITORY / "benchmarks" / "results" / "faults_hostile.json"
    out.write_text(json.dumps(figures, indent=1) + "\n")
    print({name: value for name, value in figures.items() if name != "by_case"})
    return failed


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]
    sys.exit(main())
