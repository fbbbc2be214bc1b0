"""What every test shares: no network, real data where it is, a clean folder to run in."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

# Before any import of the libraries, which read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
_real_home = os.environ.get("HF_FINETUNE_HF_HOME")
if _real_home:
    os.environ["HF_HOME"] = str(Path(_real_home).resolve())

import pytest  # noqa: E402

_CACHES = count()
_FORMAT = "ACCELERATE_MIXED_PRECISION"
REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`slow` and `long` run when asked for by -m; `real` skips, saying why, without real data; `gpu` without a GPU."""
    asked = config.getoption("-m") or ""
    for item in items:
        if item.get_closest_marker("slow") and "slow" not in asked:
            item.add_marker(pytest.mark.skip(reason="slow: run with pytest -m slow"))
        if item.get_closest_marker("long") and "long" not in asked:
            item.add_marker(pytest.mark.skip(reason="long: run with pytest -m long"))
        if item.get_closest_marker("real") and not _real_home:
            item.add_marker(pytest.mark.skip(reason="needs real data: set HF_FINETUNE_HF_HOME to a copy of hf_home"))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _little_garbage() -> Iterator[None]:
    """Takes the imported libraries out of the garbage collector's sight.

    Every `Trainer.train` collects garbage, which takes 0.2 to 0.4 s where it looks at a million objects of torch and
    transformers: more than the training of a tiny model.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """In a script's background Ctrl-C is ignored, and by default so it is in all that is started there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


_flush = os.fsync


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut() -> Iterator[None]:
    """No file of a test has to outlive a power cut: some thirty times in a small run nothing is waited for."""
    os.fsync = lambda descriptor: None
    yield
    os.fsync = _flush


@pytest.fixture
def power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of this test do have to outlive one."""
    monkeypatch.setattr(os, "fsync", _flush)


@pytest.fixture(autouse=True)
def _not_launched() -> Iterator[None]:
    """Leaves neither the number format that a Trainer writes into the environment, nor a number of threads, behind.

    With that format and one thread a run believes that `accelerate launch` has started it, and takes every core. Two
    workers with two threads each, on two cores, mostly wait for each other.
    """
    torch = sys.modules.get("torch")
    before = os.environ.get(_FORMAT), torch.get_num_threads() if torch else None
    yield
    os.environ.pop(_FORMAT, None)
    if before[0] is not None:
        os.environ[_FORMAT] = before[0]
    if torch and torch.get_num_threads() != before[1]:
        torch.set_num_threads(before[1])


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run a verb in this process, in the folder of `run_in`: call("train", "recipe=digits", ...) -> CompletedProcess.

    Starting Python and importing torch takes longer than a small job does.
    """

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        from hf_finetune.cli import main

        run.folder.mkdir(exist_ok=True)
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(run.folder)
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                code = main(arguments)
            except SystemExit as left:  # as argparse leaves
                code = left.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    run.folder = tmp_path / "empty"
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium. For one module: while it is open no test can have an event loop of its own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    names = ("chromium-headless-shell", "chromium", "google-chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium-headless-shell")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """What runs keep (features, measured formats) is this test's own, also in processes that it starts."""
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path_factory.getbasetemp() / f"cache-{next(_CACHES)}"))


@pytest.fixture
def run_in(tmp_path):
    """Run a command in an empty folder: run_in("python", "-m", "hf_finetune.run", ...) -> CompletedProcess."""

    def run(*command: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess:
        folder = tmp_path / "empty"
        folder.mkdir(exist_ok=True)
        command = (sys.executable, *command[1:]) if command[0] == "python" else command
        binaries = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            **environment,
        }
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    run.folder = tmp_path / "empty"
    return run
