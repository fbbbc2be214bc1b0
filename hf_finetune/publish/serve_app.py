"""The endpoint: `POST /predict` and `GET /health`, answered as the Hub's Inference API answers. Needs fastapi."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hf_finetune.publish.serve_batches import Batcher
from hf_finetune.publish.serve_inputs import Asked, Reader
from hf_finetune.publish.serve_limits import Guard, Limits, Refusal

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace
    from hf_finetune.evaluation.predictor import Predictor

_APPLIED = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid"}
_log = logging.getLogger("hf_finetune.serve")


def make_app(
    predictor: Predictor,
    limits: Limits,
    *,
    name: str = "",
    pairs: bool | None = None,
    max_batch: int = 16,
    wait: float = 0.005,
    loopback: bool = True,
    ready: Callable[[], object] = lambda: None,
) -> FastAPI:
    """The application.

    Args:
        predictor: a finished model.
        limits: of requests.
        name: of the model, for /health.
        pairs: whether it learned from pairs of texts; None where that is not known.
        max_batch: inputs answered together.
        wait: seconds that the first input of a batch waits for others.
        loopback: it listens on loopback alone; see `Guard`.
        ready: called when requests are answered from now on.
    """
    reader = Reader(predictor.task == "image-classification", pairs, _applied(predictor.labels), limits)
    batcher = Batcher(_answers(predictor), max_batch, wait, most_cost=limits.pixels)
    began = time.monotonic()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with batcher:
            ready()
            yield

    # No pages of documentation: they load scripts from other servers.
    app = FastAPI(title="hf_finetune", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)

    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        asked = await reader(request)
        return JSONResponse(shaped(predictor, asked, await _in_time(batcher, asked, limits.seconds)))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": name, **_state(predictor, batcher, began)}

    _speak_json(app)
    app.add_middleware(Guard, limits=limits, loopback=loopback)
    return app


def _applied(labels: LabelSpace) -> str | None:
    return None if labels.tasks else _APPLIED.get(labels.problem_type, "none")


async def _in_time(batcher: Batcher, asked: Asked, seconds: float) -> list[dict[str, Any]]:
    try:
        return await asyncio.wait_for(_all(batcher, asked), seconds)
    except (asyncio.TimeoutError, TimeoutError):
        words = f"There was no answer within {seconds:g} seconds: too much is asked at the same time."
        raise Refusal(504, words) from None


async def _all(batcher: Batcher, asked: Asked) -> list[dict[str, Any]]:
    """Answers to all inputs of a request; the first error is the request's."""
    jobs = [asyncio.ensure_future(batcher(value, cost)) for value, cost in asked.values]
    try:
        return list(await asyncio.gather(*jobs))
    finally:
        for job in jobs:  # of a request that failed or was given up
            job.cancel()


def _state(predictor: Predictor, batcher: Batcher, began: float) -> dict[str, Any]:
    return {
        "task": predictor.task,
        "labels": len(predictor.names),
        "device": str(next(predictor.loaded.model.parameters()).device),
        "waiting": batcher.waiting,
        "answered": batcher.answered,
        "batches": batcher.batches,
        "seconds": round(time.monotonic() - began, 1),
    }


def _answers(predictor: Predictor) -> Callable[[Sequence[Any]], list[Any]]:
    """The batcher's work: values -> for each the answers of its tasks, all labels, best first."""
    most = len(predictor.names)

    def answer(values: Sequence[Any]) -> list[Any]:
        found: list[Any] = [None] * len(values)
        kinds = {len(value) if isinstance(value, tuple) else 0 for value in values}
        for kind in kinds:  # single texts and pairs do not go together
            rows = [row for row, value in enumerate(values) if kind == (len(value) if isinstance(value, tuple) else 0)]
            answers = predictor.answer([values[row] for row in rows], batch_size=len(rows))
            words = predictor.in_words(answers, top=most)
            for place, row in enumerate(rows):
                reason = answers.errors.get(place)
                found[row] = words[place] if reason is None else Refusal(400, f"The image cannot be decoded: {reason}.")
        return found

    return answer


def shaped(predictor: Predictor, asked: Asked, found: Sequence[Any]) -> Any:
    """Answers as the Inference API shapes them.

    Images: [{"label", "score"}, ...], the five best, and a list of such for a list. Texts: a list of such in any case.
    Numbers stand where scores do. Several tasks: an object of such answers by the names of the tasks. What the model
    knows beyond that API is a further key: "set" in the best answer (prediction sets), "given" in each (thresholds).
    """
    image = predictor.task == "image-classification"
    top = asked.top or (5 if image else None)

    def one(labels: LabelSpace, said: Any) -> list[dict[str, Any]]:
        if labels.problem_type == "regression":
            values = said if isinstance(said, list) else [said]
            return [{"label": name, "score": value} for name, value in zip(labels.names, values, strict=True)]
        return list(said[:top])

    tasks = predictor.labels.tasks
    rows = [
        {part.name: one(part.space, said[part.name]) for part in tasks} if tasks else one(predictor.labels, said)
        for said in found
    ]
    return rows if asked.many or not image else rows[0]


def _speak_json(app: FastAPI) -> None:
    """Every error is {"error": words}."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse({"error": refusal.words}, refusal.status)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        known = {404: "There is no such page: POST /predict and GET /health are.", 405: "POST /predict, GET /health."}
        return JSONResponse({"error": known.get(error.status_code, str(error.detail))}, error.status_code)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        _log.error("a request failed", exc_info=error)
        return JSONResponse({"error": "The model failed on this input; the server's log says why."}, 500)
