"""What every test shares: no network, real data where it is, a clean folder to run in."""

import os
import subprocess
import sys
from pathlib import Path

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

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`slow` runs when asked for by -m; `real` skips, saying why, without real data; `gpu` without a GPU."""
    asked = config.getoption("-m") or ""
    for item in items:
        if item.get_closest_marker("slow") and "slow" not in asked:
            item.add_marker(pytest.mark.skip(reason="slow: run with pytest -m slow"))
        if item.get_closest_marker("real") and not _real_home:
            item.add_marker(pytest.mark.skip(reason="needs real data: set HF_FINETUNE_HF_HOME to a copy of hf_home"))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


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
