"""Trying again what the network or a busy server has refused; telling what will not pass, without secrets."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from hf_finetune.console import warn
from hf_finetune.errors import UserError

_LIKE_A_TOKEN = re.compile(r"\b(hf|api)_[A-Za-z0-9]{8,}")
_QUERY = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]+")
# hf_xet raises the built-in ConnectionError for every answer of the storage, also for those that will not change.
_XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})\b")
_PASSING = (408, 409, 412, 425, 429, 500, 502, 503, 504)  # 409, 412: somebody else has committed meanwhile

Result = TypeVar("Result")


class GivenUp(Exception):
    """Given up, and why.

    Args:
        words: why.
        passing: whether it may succeed later.
    """

    def __init__(self, words: str, passing: bool = False) -> None:
        self.words, self.passing = words, passing


def again(step: Callable[[], Result], waits: tuple[float, ...]) -> Result:
    """Call `step` until it succeeds, with waits between; what will not pass by itself is told at once."""
    for number, wait in enumerate((*waits, None), start=1):
        result, error = _tried(step)
        if error is None:
            return result  # type: ignore[return-value]
        if not may_pass(error):
            raise GivenUp(refused(error))
        if wait is None:
            raise GivenUp(f"{told(error)} (after {number} attempts)", passing=True)
        pause = max(wait, asked_to_wait(error))
        warn(f"the push did not get through: {told(error)}. Again in {pause:.0f} s.")
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _tried(step: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    try:
        return step(), None
    except UserError:
        raise
    except Exception as error:  # of the client, of the network below it, of the storage's own library
        return None, error


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of the client, or of the storage's own library, tells."""
    response = getattr(error, "response", None)
    if response is None and isinstance(error, ConnectionError) and (found := _XET_STATUS.search(str(error))):
        return int(found[1])
    return getattr(response, "status_code", None)


def may_pass(error: BaseException) -> bool:
    """Whether the same may succeed a little later: the network, an overloaded server, somebody else's commit."""
    while True:
        status = status_of(error)
        if status is not None:
            return status in _PASSING
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & {"TransportError", "ConnectionError", "TimeoutError", "JSONDecodeError"}:
            return True
        if error.__cause__ is None:
            return False
        error = error.__cause__


def asked_to_wait(error: BaseException) -> float:
    """Seconds that the server asks for, at most five minutes."""
    response = getattr(error, "response", None)
    given = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(given), 300.0) if given.isdigit() else 0.0


def refused(error: BaseException) -> str:
    """What to do about an answer that will not change by itself."""
    said = {
        401: "the Hub refuses the token: it is wrong or has expired. `hf auth login`, or set HF_TOKEN",
        403: "the token may not write there: give it write access, or choose a repository of yours",
    }.get(status_of(error) or 0)
    return f"{said} ({told(error)})." if said else told(error)


def told(error: BaseException) -> str:
    """An error in one line that holds no token and no signed address."""
    from huggingface_hub import get_token

    texts = [str(error)]
    while isinstance(error, RuntimeError) and error.__cause__ is not None:  # it names the file, its cause the reason
        error = error.__cause__
        texts.append(str(error))
    text = " ".join(" ".join(texts).split()) or type(error).__name__
    token = get_token()
    text = text.replace(token, "***") if token else text
    return _LIKE_A_TOKEN.sub("***", _QUERY.sub(r"\1", text))[:400]
