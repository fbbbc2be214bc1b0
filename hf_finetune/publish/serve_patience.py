"""A connection that begins a request and does not finish its head is closed: uvicorn waits for it for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient_for(seconds: float) -> type[H11Protocol]:
    """A protocol for `uvicorn.Config(http=...)`: h11's, whose request heads are at most 64 KB, with a limit of time.

    Args:
        seconds: from the connection, or the first byte after an answer, to the end of a request's head.
    """

    class Patient(H11Protocol):
        """Closes what keeps a place and asks nothing."""

        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            """A connection: from now on a request may be waited for."""
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            """More of a request's head, or of its body, for whose time the guard looks."""
            super().data_received(data)
            if self._idle():
                self._wait()
            else:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            """Nothing more to wait for."""
            self._stop_waiting()
            super().connection_lost(exc)

        def _idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _wait(self) -> None:
            if self._waiting is None:  # a byte now and then does not make it longer
                self._waiting = self.loop.call_later(seconds, self._give_up)

        def _stop_waiting(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _give_up(self) -> None:
            self._waiting = None
            if self._idle() and not self.transport.is_closing():
                self.transport.close()

    return Patient
