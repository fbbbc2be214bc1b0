"""Requests that come at the same time are answered together: one batch at a time, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hf_finetune.errors import UserError
from hf_finetune.publish.serve_limits import Refusal


@dataclass
class _Waiting:
    value: Any
    cost: int
    answer: asyncio.Future[Any]


class Batcher:
    """`await batcher(value)` waits a moment for company, and gives the value's own answer.

    Args:
        answer: a list of values -> their answers, in order; an exception among them is that value's answer. Runs in one
            thread, never twice at once.
        most: values in a batch.
        seconds: how long the first of a batch waits for others.
        most_cost: of a batch that holds more than one value, such as pixels to be decoded.
    """

    def __init__(
        self, answer: Callable[[Sequence[Any]], list[Any]], most: int, seconds: float = 0.005, most_cost: int = 2**62
    ) -> None:
        self._answer, self._most, self._seconds, self._most_cost = answer, most, seconds, most_cost
        self._queue: deque[_Waiting] = deque()
        self._come = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None
        self.batches = self.answered = 0

    @property
    def waiting(self) -> int:
        """Values in no batch yet."""
        return len(self._queue)

    async def __aenter__(self) -> Batcher:
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for left in self._queue:
            if not left.answer.done():
                left.answer.set_exception(Refusal(503, "The server is being stopped."))
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def __call__(self, value: Any, cost: int = 1) -> Any:
        """The answer to one value; what it raises is that value's own."""
        entry = _Waiting(value, cost, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._come.set()
        return await entry.answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._come.wait()
            end = loop.time() + self._seconds
            while len(self._queue) < self._most and (left := end - loop.time()) > 0:
                self._come.clear()
                try:
                    await asyncio.wait_for(self._come.wait(), left)
                except (asyncio.TimeoutError, TimeoutError):
                    break
            batch = self._next()
            if batch:
                found = await loop.run_in_executor(self._thread, self._each, [entry.value for entry in batch])
                self.batches += 1
                self.answered += len(batch)
                for entry, one in zip(batch, found, strict=True):
                    if not entry.answer.done():
                        entry.answer.set_exception(one) if isinstance(one, Exception) else entry.answer.set_result(one)
            if self._queue:
                self._come.set()
            else:
                self._come.clear()

    def _next(self) -> list[_Waiting]:
        """The first in the queue, without those whose sender has given up, as many as fit together."""
        batch: list[_Waiting] = []
        cost = 0
        while self._queue and len(batch) < self._most:
            if self._queue[0].answer.done():
                self._queue.popleft()
                continue
            cost += self._queue[0].cost
            if batch and cost > self._most_cost:
                break
            batch.append(self._queue.popleft())
        return batch

    def _each(self, values: list[Any]) -> list[Any]:
        """Answers; where a batch fails, its values one by one, so that a bad one spoils no other."""
        try:
            return self._answer(values)
        except Exception as error:
            if len(values) == 1:
                return [Refusal(400, str(error)) if isinstance(error, UserError) else error]
        return [self._each([value])[0] for value in values]
