"""Two nodes in network namespaces of their own, joined by a cable that is pulled while they train. Needs root on Linux.

    python tests/faults/two_nodes.py --out benchmarks/results/two_nodes.json

Cases: the cable stays in; it is out for some seconds; it is out for good, with a short `training.ddp_timeout`; then
both are started again, and go on. Of each: how the launchers ended, seconds, what the processes said of the other.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_NODES = ("hfnode0", "hfnode1")
_ADDRESSES = ("10.77.41.1", "10.77.41.2")
_CABLES = ("hfcable0", "hfcable1")
_JOB = (
    *("recipe=digits", "model.checkpoint=package:digits-vit", "data.max_eval_samples=60", "precision=no"),
    *("training.per_device_train_batch_size=8", "training.eval_strategy=steps", "training.eval_steps=40"),
    *("training.save_steps=40", "evaluation.bootstrap=0", "output_dir=run"),
)
_WORDS = ("has lost another process", "has not got on for", "ends now", "goes on from", "Continuing from")


def ip(*words: str, check: bool = True) -> None:
    """The command `ip`."""
    subprocess.run(("ip", *words), check=check, capture_output=not check)


def build() -> None:
    """Two namespaces and a cable."""
    for node in _NODES:
        ip("netns", "add", node)
    ip("link", "add", _CABLES[0], "type", "veth", "peer", "name", _CABLES[1])
    for node, cable, address in zip(_NODES, _CABLES, _ADDRESSES, strict=True):
        ip("link", "set", cable, "netns", node)
        ip("-n", node, "addr", "add", f"{address}/24", "dev", cable)
        for device in ("lo", cable):
            ip("-n", node, "link", "set", device, "up")


def clear() -> None:
    """Take them away; the cable goes with them."""
    for node in _NODES:
        ip("netns", "del", node, check=False)


def start(rank: int, port: int, folder: Path, more: tuple[str, ...]) -> subprocess.Popen[str]:
    """One node's launcher, with one process."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": _CABLES[rank],
    }
    command = (
        *("ip", "netns", "exec", _NODES[rank], sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1"),
        *("--master_addr", _ADDRESSES[0], "--master_port", str(port)),
        *(str(REPOSITORY / "hf_finetune" / "run.py"), *_JOB, *more),
    )
    log = (folder / f"node{rank}-{port}.log").open("w")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True)


def ended_by_hand(node: subprocess.Popen[str]) -> None:
    """A launcher that is killed leaves its processes behind."""
    everyone = [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]
    for process in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait()


def train(folder: Path, port: int, more: tuple[str, ...], out_for: float | None, wait: float = 300) -> dict[str, Any]:
    """Both nodes to their end; after the first checkpoint the cable is out for so many seconds (None: it stays in)."""
    began = time.monotonic()
    nodes = [start(rank, port, folder, more) for rank in range(2)]
    pulled = None
    if out_for is not None:
        while not list((folder / "run" / "checkpoints").glob("checkpoint-*")) and nodes[0].poll() is None:
            time.sleep(0.05)
        ip("-n", _NODES[1], "link", "set", _CABLES[1], "down")
        pulled = time.monotonic()
        if out_for < wait:
            time.sleep(out_for)
            ip("-n", _NODES[1], "link", "set", _CABLES[1], "up")
    ended = []
    for node in nodes:
        try:
            node.wait(max(1.0, wait - (time.monotonic() - began)))
        except subprocess.TimeoutExpired:
            ended_by_hand(node)
        ended.append(node.returncode)
    after = round(time.monotonic() - (pulled or began), 1)
    ip("-n", _NODES[1], "link", "set", _CABLES[1], "up")
    logs = [(folder / f"node{rank}-{port}.log").read_text() for rank in range(2)]
    return {
        "launchers ended with": ended,
        "seconds" if pulled is None else "seconds after the cable was pulled": after,
        "said": [[line.strip()[:300] for line in log.splitlines() if any(w in line for w in _WORDS)] for log in logs],
        "weights": _digest(folder / "run" / "model.safetensors"),
    }


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else None


def main() -> None:
    """All cases, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--short", type=float, default=8.0, help="seconds that the cable is out, where it comes back")
    parser.add_argument("--timeout", type=int, default=30, help="training.ddp_timeout of the case in which it does not")
    args = parser.parse_args()
    length = (f"training.num_train_epochs={args.epochs}",)
    clear()
    build()
    found: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for case, port, out_for, more in (
                ("the cable stays in", 29601, None, ()),
                (f"out for {args.short:g} s", 29602, args.short, ()),
                ("out for good", 29603, 1e9, (f"training.ddp_timeout={args.timeout}",)),
                ("both started again", 29604, None, (f"training.ddp_timeout={args.timeout}",)),
            ):
                found[case] = train(folder, port, (*length, *more), out_for)
                print(case, json.dumps(found[case], indent=1), flush=True)
                if case != "out for good":
                    shutil.rmtree(folder / "run", ignore_errors=True)
    finally:
        clear()
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
