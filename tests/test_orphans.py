"""Helping processes end with the one that started them, also where it is killed before they look who it is."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from datasets import Dataset, Features, Value
from torch.utils.data import DataLoader

from hf_finetune import orphans, stopping
from hf_finetune.data import passes

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """They look often."""
    monkeypatch.setattr(orphans, "_EVERY", 0.05)


def gone_with(work, count):
    """Fork and do the work there; kill that process when `count` helpers have said who they are; see them go."""
    reader, writer = os.pipe()
    if (main := os.fork()) == 0:
        try:
            work(writer)
        finally:
            os._exit(0)
    os.close(writer)
    said = b""
    while said.count(b"\n") < count:
        said += os.read(reader, 100) or pytest.fail("no helper has begun")
    helpers = {psutil.Process(int(number)) for number in said.split()} | set(psutil.Process(main).children())
    os.kill(main, signal.SIGKILL)
    os.waitpid(main, 0)
    _, left = psutil.wait_procs(helpers, timeout=20)
    for helper in left:
        helper.kill()
    return not left


@pytest.mark.parametrize("when", ["before it looks", "when it has looked"])
def test_a_loaders_worker_whose_process_was_killed_meanwhile(when):
    """torch's own watchdog begins behind the init function, and takes whoever is the parent then."""

    def load(writer):
        def wait(worker):
            parent = os.getppid()
            os.write(writer, b"%d\n" % os.getpid())
            while os.getppid() == parent:
                time.sleep(0.01)

        made = stopping.deaf_worker(wait if when == "when it has looked" else None)

        def init(worker):
            if when == "before it looks":
                wait(worker)
            made(worker)

        list(DataLoader(range(4), num_workers=1, worker_init_fn=init))

    assert gone_with(load, 1)


def test_processes_that_pass_over_rows(monkeypatch):
    """Two and their manager: `datasets` leaves all three behind."""
    monkeypatch.setattr(passes, "_MANY", {"text": 2})
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def look(writer):
        def slowly(batch):
            os.write(writer, b"%d\n" % os.getpid())
            time.sleep(0.5)
            return {"n": [1] * len(batch["text"])}

        rows = Dataset.from_dict({"text": [str(time.time_ns() + n) for n in range(1024)]})
        passes.cached_pass(rows, slowly, Features({"n": Value("int64")}), "test-of-orphans", "1", "looking")

    assert gone_with(look, 2)
