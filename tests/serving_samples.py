"""A real server of the command line in a process of its own, and images that nobody should have to decode."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import PIL.Image

REPOSITORY = Path(__file__).resolve().parent.parent


class Server:
    """`hf-finetune VERB MODEL --port 0 ...` until `stop`.

    Args:
        words: the command line behind `hf-finetune`.
        folder: for its log.
    """

    def __init__(self, *words: str, folder: Path, command: tuple[str, ...] = ("-m", "hf_finetune.cli")) -> None:
        self.log = folder / "server.log"
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-u", *command, *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        self.said = []
        while line := self.process.stdout.readline():
            self.said.append(line)
            if found := re.search(r"http://(127\.0\.0\.1):(\d+)", line):
                self.host, self.port = found[1], int(found[2])
                return
        raise AssertionError("".join(self.said) + self.log.read_text())

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def post(self, body: Any, kind: str | None = None, path: str = "/predict", **headers: str) -> tuple[int, Any]:
        """Status and JSON of an answer; what is no bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = kind or ("application/octet-stream" if isinstance(body, bytes) else "application/json")
        return self.ask("POST", path, content, {"Content-Type": kind, **headers})

    def ask(self, method: str, path: str, body: Any = None, headers: dict | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """The exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(timeout=60)
        self.said += self.process.stdout.readlines()
        return code


def encoded(image: PIL.Image.Image, kind: str = "PNG") -> bytes:
    """An image as a file of that kind."""
    kept = io.BytesIO()
    image.save(kept, kind)
    return kept.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it has so many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
