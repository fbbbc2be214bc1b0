"""What a server takes from strangers: so large a body, in so much time, from so many at once, under its own name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_DISCARDED = 8  # times the limit are read of a body that is too large, so that its sender hears the answer


class Refusal(Exception):
    """An answer that is an error.

    Args:
        status: of HTTP.
        words: what is the matter and what to do.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


@dataclass(frozen=True)
class Limits:
    """Of one server.

    Args:
        megabytes: most of a request's body, in 2^20 bytes.
        seconds: for a body to arrive, and again for its answer.
        pending: requests with a body at a time; more are sent away.
        megapixels: most of an image, in 10^6.
        inputs: images or texts in one request.
        characters: of a text.
    """

    megabytes: float = 10.0
    seconds: float = 30.0
    pending: int = 64
    megapixels: float = 40.0
    inputs: int = 256
    characters: int = 100_000

    @property
    def bytes(self) -> int:
        """Most of a body."""
        return int(self.megabytes * 2**20)

    @property
    def pixels(self) -> int:
        """Most of an image."""
        return int(self.megapixels * 1e6)


class Guard:
    """ASGI middleware that reads a request's body before anything else does.

    Args:
        app: what is guarded.
        limits: for requests with a body.
        loopback: the server listens on loopback alone, so that a request under another name comes from a page in a
            browser whose name was made to point here (DNS rebinding).
    """

    def __init__(self, app: App, limits: Limits, loopback: bool = True) -> None:
        self.app, self.limits, self.loopback = app, limits, loopback
        self.busy = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on, or answer in words why not."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if self.loopback and not _own_name(scope):
            return await _refuse(send, Refusal(421, "This server answers under localhost and 127.0.0.1 alone."))
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self.app(scope, receive, send)
        if self.busy >= self.limits.pending:
            words = f"{self.busy} requests are being answered, and no more are taken now. Try again in a second."
            return await _refuse(send, Refusal(503, words))
        self.busy += 1
        try:
            body = await self._body(scope, receive)
            await self.app(scope, _replay(body, receive), send)
        except Refusal as refusal:
            await _refuse(send, refusal)
        finally:
            self.busy -= 1
        return None

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        most = self.limits.bytes
        said = _header(scope, b"content-length")
        promised = int(said[:20]) if said.isdecimal() else 0  # Python reads no number of 5,000 digits
        try:
            body = await asyncio.wait_for(_read(receive, most, promised), self.limits.seconds)
        except (asyncio.TimeoutError, TimeoutError):
            words = f"The request's body did not arrive within {self.limits.seconds:g} seconds."
            raise Refusal(408, words) from None
        if body is None:
            raise Refusal(
                413, f"The request's body is larger than {self.limits.megabytes:g} MB, the most that is taken."
            )
        return body


async def _read(receive: Receive, most: int, promised: int) -> bytes | None:
    """The body; None where it is too large, after some of it was read and thrown away."""
    chunks: list[bytes] = []
    size, too_large = 0, promised > most
    if promised > most * _DISCARDED:
        return None
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "The connection was closed before the request's body was complete.")
        chunk = message.get("body", b"")
        size += len(chunk)
        too_large = too_large or size > most
        if too_large:
            chunks.clear()
        else:
            chunks.append(chunk)
        if not message.get("more_body") or size > most * _DISCARDED:
            return None if too_large else b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body as one message; after it what the connection says."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _own_name(scope: MutableMapping[str, Any]) -> bool:
    host = _header(scope, b"host")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() in LOOPBACK


def _header(scope: MutableMapping[str, Any], wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


async def _refuse(send: Send, refusal: Refusal) -> None:
    """An answer without the app; the connection ends, since some of the body may not have been read."""
    body = json.dumps({"error": refusal.words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")] + [(b"retry-after", b"1")] * (refusal.status == 503)
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
