"""`hf-finetune serve`: a finished model behind HTTP, on this machine alone unless told otherwise."""

from __future__ import annotations

import importlib.util
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

from hf_finetune.console import say, warn
from hf_finetune.errors import UserError
from hf_finetune.publish.serve_limits import LOOPBACK, Limits

_CONNECTIONS = 4  # for each request that may be answered: others wait, ask for /health, or are sent away in words
_BACKLOG = 128
_GRACE = 10  # seconds for requests that are being answered when the server is told to stop


def serve_command(
    model: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_batch: int = 16,
    wait: float = 0.005,
    limits: Limits | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C; what is being answered then is answered first.

    Args:
        model: an output_dir, a folder or a Hub id.
        host: the address to listen on; `0.0.0.0` for every network that this machine is in.
        port: 0 takes any that is free.
        max_batch: inputs answered together.
        wait: seconds that the first input of a batch waits for others.
        limits: of requests.
        trust_remote_code: run code from the Hub that the checkpoint brings.

    Raises:
        UserError: a package is missing, the port is taken, or there is no such model.
    """
    need("serve", "fastapi", "uvicorn", "python_multipart")
    limits = limits or Limits()
    listening = listen(host, port)  # before the model is loaded, which takes longer
    import uvicorn

    from hf_finetune.evaluation.commands import predictor_of, recipe_in
    from hf_finetune.model import load_finished
    from hf_finetune.publish.serve_app import make_app
    from hf_finetune.publish.serve_patience import patient_for

    run = recipe_in(model)
    predictor = predictor_of(load_finished(model, trust_remote_code=trust_remote_code), model)
    app = make_app(
        predictor,
        limits,
        name=model,
        pairs=None if run is None else run.data.text_pair is not None,
        max_batch=max_batch,
        wait=wait,
        loopback=host in LOOPBACK,
        ready=lambda: _announce(model, host, listening),
    )
    config = uvicorn.Config(
        app,
        http=patient_for(limits.seconds),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.pending * _CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_GRACE,
    )
    server = uvicorn.Server(config)
    until_told(lambda: server.run(sockets=[listening]), lambda: setattr(server, "should_exit", True))
    say("stopped")


def _announce(model: str, host: str, listening: socket.socket) -> None:
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    say(f"{model} answers at {address}/predict (POST); {address}/health tells how it is. Ctrl-C ends it.")
    if host not in LOOPBACK:
        warn("there is no password: whoever can reach this machine can use the model.")


def need(extra: str, *modules: str) -> None:
    """Raises UserError where packages of an extra are missing."""
    missing = [name.replace("_", "-") for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'{" and ".join(missing)} is missing. Install the extra: pip install "hf_finetune[{extra}]"')


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound.

    Raises:
        UserError: the address is not this machine's, or taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)  # who comes while the server starts waits, and is not turned away
    except (OSError, OverflowError) as error:
        raise UserError(f"Nothing can listen on {host}, port {port}: {error}. Name another with --port.") from None
    return listening


def until_told(work: Callable[[], Any], stop: Callable[[], Any]) -> None:
    """Run a server until SIGTERM or Ctrl-C, and go on after it.

    Args:
        work: runs until `stop` was called. uvicorn handles the signals itself, and raises the one that ended it once
            more when it is done, for whoever handled it before: then there is nothing left to stop.
        stop: called where a signal comes while nobody else handles it.
    """

    def heard(number: int, frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        work()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
