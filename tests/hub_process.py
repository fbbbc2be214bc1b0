"""A process of its own for the command line, whose Hub is the one on loopback; started once, asked many times.

The client reads HF_ENDPOINT when it is imported, and importing torch takes longer than a push.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
TOKEN = "hf_MarkerThatNobodyMayEverSee42"


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def environment(hub_url: str, home: Path, **more: str) -> dict[str, str]:
    """Of a process whose Hub is on loopback, with a cache of its own."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {
        **plain,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(home),
        "HF_FINETUNE_CACHE": str(home / "kept"),
        # The loopback server speaks git LFS, not the Xet storage's own protocol.
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        **more,
    }


class CommandLine:
    """`hf-finetune` in one process, in one folder: line("push", RUN, "--repo", ...) -> Answer."""

    def __init__(self, folder: Path, hub_url: str, token: str | None = TOKEN) -> None:
        self.folder, self.token = folder, token
        self._log = (folder / "process.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=folder,
            env=environment(hub_url, folder / "home"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __call__(self, *arguments: str, **environment: str | None) -> Answer:
        """Run a verb."""
        return self._ask({"argv": arguments}, environment)

    def python(self, code: str, **environment: str | None) -> Answer:
        """Run Python in that process."""
        return self._ask({"code": code}, environment)

    def _ask(self, what: dict, environment: dict) -> Answer:
        self._process.stdin.write(json.dumps(what | {"env": {"HF_TOKEN": self.token, **environment}}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, (self.folder / "process.log").read_text()
        answer = Answer(*json.loads(line))
        with (self.folder / "answers.log").open("a") as log:
            log.write(answer.out + answer.err)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._log.close()


def _serve() -> None:
    import contextlib
    import io
    import traceback

    from hf_finetune.cli import main

    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    for line in sys.stdin:
        asked = json.loads(line)
        for name, value in asked["env"].items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(asked["argv"]) if "argv" in asked else exec(asked["code"], {}) or 0
            except SystemExit as left:
                code = left.code
            except BaseException:
                traceback.print_exc()
                code = 70
        reply.write(json.dumps([code, out.getvalue(), err.getvalue()]) + "\n")
        reply.flush()


if __name__ == "__main__":
    _serve()
