"""Notes when each optimizer step of a process began; Python imports this by itself at start-up, in every contestant.

The harness puts this folder on PYTHONPATH and names the file to write in BENCH_CLOCK. Nothing is imported early and the
contestants' code is not touched: torch's own global hook is registered when they import torch.optim themselves.
"""

import atexit
import json
import os
import sys
import time
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_MODULE = "torch.optim.optimizer"
_TIMES: list[float] = []


class _Watching(Loader):
    """Loads the module as its own loader does, then registers the hook."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.own.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self.own.exec_module(module)
        module.register_optimizer_step_pre_hook(lambda *_: _TIMES.append(time.time()))


class _Finder(MetaPathFinder):
    """Steps in for one module only."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Watching(spec.loader)
        return spec


def _write(file: str, process: int) -> None:
    if os.getpid() == process and _TIMES:  # a forked loader worker has nothing to tell
        noted: dict[str, Any] = {"steps": _TIMES}
        cuda = sys.modules["torch"].cuda
        if cuda.is_initialized():
            noted["gpu_peak_mb"] = round(cuda.max_memory_allocated() / 2**20, 1)
        with open(file, "w", encoding="utf-8") as out:  # noqa: PTH123 (no further import at start-up)
            json.dump(noted, out)


if os.environ.get("BENCH_CLOCK"):
    sys.meta_path.insert(0, _Finder())
    atexit.register(_write, os.environ["BENCH_CLOCK"], os.getpid())
