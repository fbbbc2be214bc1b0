"""One run of one contestant, in a process of its own, and what is measured of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Args:
        name: as tables show it.
        command: what follows `python`; {out} is the file for its report, {work} an empty folder of its own.
        batch_size: samples a step, for samples a second.
        warm: keeps what earlier runs of the round left in the cache; every other one starts with an empty cache.
        times: it runs this part of its epochs: what comes after its first step counts so many times, and its accuracy
            does not count. For a script that does the same in every epoch and would take an hour.
    """

    name: str
    command: tuple[str, ...]
    batch_size: int = 0
    warm: bool = False
    times: int = 1


@dataclass
class Arena:
    """Where and how a contest runs: folders, Hugging Face home, threads."""

    work: Path
    threads: int | None = None
    home: Path = field(init=False)

    def __post_init__(self) -> None:
        """A Hugging Face home that borrows models and data from the user's own, so that the cache is ours to empty."""
        self.work = self.work.resolve()
        self.home = self.work / "hf_home"
        self.home.mkdir(parents=True, exist_ok=True)
        own = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
        for name in ("hub", "datasets", "modules"):
            if (own / name).is_dir() and not (self.home / name).exists():
                (self.home / name).symlink_to((own / name).resolve(), target_is_directory=True)

    def environment(self, clock: Path) -> dict[str, str]:
        """The contestants' environment: without a limit on threads, unless one was asked for."""
        paths = [str(HERE / "clock"), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        limit = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        return {
            **kept,
            **limit,
            "PYTHONPATH": os.pathsep.join(paths),
            "HF_HOME": str(self.home),
            "BENCH_CLOCK": str(clock),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def empty_cache(self) -> None:
        """Forget what hf_finetune kept from earlier runs."""
        shutil.rmtree(self.home / "hf_finetune", ignore_errors=True)


def run_once(contestant: Contestant, arena: Arena) -> dict[str, Any]:
    """One run: its measures.

    Raises:
        RuntimeError: it failed; the end of what it said is in the message.
    """
    if not contestant.warm:
        arena.empty_cache()
    with tempfile.TemporaryDirectory(dir=arena.work) as folder:
        work, out, clock = Path(folder, "work"), Path(folder, "report.json"), Path(folder, "clock.json")
        work.mkdir()
        command = [sys.executable, *(part.format(out=out, work=work) for part in contestant.command)]
        with Path(folder, "log").open("w+b") as log:
            started = time.time()
            child = subprocess.Popen(
                command, cwd=work, env=arena.environment(clock), stdout=log, stderr=subprocess.STDOUT
            )
            peak_of_tree, status, usage = _wait(child)
            seconds = time.time() - started
            if status != 0:
                log.seek(0)
                end = log.read().decode(errors="replace")[-3000:]
                raise RuntimeError(f"{contestant.name} ended with {status}: {' '.join(command)}\n{end}")
        report = _report(out, work)
        noted = json.loads(clock.read_text(encoding="utf-8")) if clock.is_file() else {"steps": []}
    steps = noted.pop("steps")
    part = {}
    if contestant.times > 1:
        part = {"measured_seconds": round(seconds, 3), "times": contestant.times}
        report["accuracy_of_part"] = report.pop("accuracy")
        seconds += (contestant.times - 1) * (seconds - (steps[0] - started))
    return {
        "seconds": round(seconds, 3),
        **part,
        "first_step_seconds": round(steps[0] - started, 3) if steps else None,
        "samples_per_second": _throughput(steps, contestant.batch_size),
        "steps": len(steps),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_process_mb": round(usage.ru_maxrss / 1024, 1),
        "peak_mb": round(max(peak_of_tree, usage.ru_maxrss * 1024) / 2**20, 1),
        **noted,
        **report,
    }


def _wait(child: subprocess.Popen[bytes]) -> tuple[int, int, Any]:
    """Waits for a process: the peak memory of it and its children together (bytes), exit status, resource usage."""
    peak = 0
    watched = psutil.Process(child.pid)
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return peak, child.returncode, usage
        peak = max(peak, _memory(watched))
        time.sleep(_POLL_SECONDS)


def _memory(process: psutil.Process) -> int:
    """Bytes of a process and its children; pages that several share count once (PSS), where the system says so."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            used = each.memory_full_info()
            total += getattr(used, "pss", used.rss)
    except psutil.Error:
        return 0
    return total


def _throughput(steps: list[float], batch_size: int) -> float | None:
    """Samples a second between the first and the last step; of many steps the first tenth is left out as warm-up."""
    counted = steps[len(steps) // 10 if len(steps) >= 50 else 0 :]
    if len(counted) < 2 or not batch_size or counted[-1] <= counted[0]:
        return None
    return round((len(counted) - 1) * batch_size / (counted[-1] - counted[0]), 1)


def _report(out: Path, work: Path) -> dict[str, Any]:
    """What the contestant wrote: its own report, or the metrics.json of a run of ours in {work}/run."""
    if out.is_file():
        report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return report
    metrics = json.loads((work / "run" / "metrics.json").read_text(encoding="utf-8"))
    scores = metrics.get("test") or metrics["validation"]
    training = {f"train_{name}": value for name, value in metrics["train"].items() if isinstance(value, (int, float))}
    return {"accuracy": scores["accuracy"], "test_rows": scores["samples"], **training}
