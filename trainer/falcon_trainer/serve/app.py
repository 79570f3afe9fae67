"""The endpoint's HTTP: Starlette routes over the parts that decide."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from falcon_trainer.serve.answering import Answering
from falcon_trainer.serve.authorization import Guard
from falcon_trainer.serve.errors import ApiError, engine_failed, invalid, not_ready, unknown_model
from falcon_trainer.serve.health import Health
from falcon_trainer.serve.metrics import Metrics
from falcon_trainer.serve.middleware import Drained, Guarded, Measured
from falcon_trainer.serve.question import Question, chat_question, completion_question
from falcon_trainer.serve.schema import Ask, ChatAsk, CompletionAsk, parse
from falcon_trainer.serve.streaming import ClientGoneError, EventStream, unless_disconnected

LARGEST_BODY = 4 << 20
"""Bytes; a prompt of 131,072 tokens has about half a megabyte."""
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@dataclass
class Endpoint:
    """The handlers of one served model. `answering` is there when the model's tokenizer is."""

    names: tuple[str, ...]
    """What a request may call the model; the first one is the run's."""
    health: Health
    metrics: Metrics
    responds: Callable[[], Awaitable[str | None]]
    """Why the server should be restarted, None where it should not."""
    guard: Guard | None = None
    answering: Answering | None = None
    started: float = 0.0

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route(CHAT, self.chat, methods=["POST"]),
                Route(COMPLETIONS, self.complete, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/v1/models/{model}", self.model_of),
                Route("/health", self.alive),
                Route("/ready", self.ready),
                Route("/metrics", self.exposition),
            ],
            middleware=[
                Middleware(Drained, draining=self.health.draining),
                Middleware(Measured, metrics=self.metrics, paths={CHAT, COMPLETIONS}),
                Middleware(Guarded, guard=self.guard),
            ],
            exception_handlers={
                ApiError: _refuse,
                HTTPException: _refuse_route,
                ClientGoneError: _nobody,
                Exception: _unexpected,
            },
        )

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        ask = parse(ChatAsk, await _body(request))
        answering = self._ready_answering(ask)
        return await self._answer(request, ask, await run_in_threadpool(chat_question, ask, answering.model), answering)

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        ask = parse(CompletionAsk, await _body(request))
        answering = self._ready_answering(ask)
        question = await run_in_threadpool(completion_question, ask, answering.model)
        return await self._answer(request, ask, question, answering)

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self._card(name) for name in self.names]})

    async def model_of(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        asked = request.path_params["model"]
        if asked not in self.names:
            raise unknown_model(asked, self.names)
        return JSONResponse(self._card(asked))

    async def alive(self, _: Request) -> Response:
        """GET /health: 503 where only a restart helps."""
        reason = await self.responds()
        return _status("unhealthy" if reason else "ok", reason)

    async def ready(self, _: Request) -> Response:
        """GET /ready: 200 while the model gives tokens."""
        reason = self.health.unready()
        return _status("unready" if reason else "ready", reason)

    async def exposition(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(self.metrics.exposition(), media_type=self.metrics.content_type)

    async def _answer(self, request: Request, ask: Ask, question: Question, answering: Answering) -> Response:
        answering.turns.check()
        if ask.stream:
            usage = ask.stream_options is not None and ask.stream_options.include_usage
            return EventStream(answering.stream(question, include_usage=usage), self.metrics.disconnects.inc)
        return JSONResponse(await unless_disconnected(request, answering.whole(question), self.metrics.disconnects.inc))

    def _ready_answering(self, ask: Ask) -> Answering:
        if ask.stream_options is not None and not ask.stream:
            raise invalid("stream_options is only allowed when stream is true.", param="stream_options")
        if self.answering is None or not self.health.loaded:
            raise not_ready("The model is being loaded. Ask /ready until it answers 200.")
        return self.answering

    def _card(self, name: str) -> dict[str, Any]:
        card = {"id": name, "object": "model", "created": int(self.started), "owned_by": "falcon-finetune"}
        card["root"] = self.names[0]  # as vLLM has it: what an alias stands for
        return card | ({"max_model_len": self.answering.model.positions} if self.answering else {})


async def _body(request: Request) -> bytes:
    """The whole body. Raises ApiError where it is larger than LARGEST_BODY, however it is sent."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise ApiError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The body has more than {LARGEST_BODY:,} bytes.",
                "request_too_large",
            )
    return bytes(body)


def _status(word: str, reason: str | None) -> Response:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
    return JSONResponse({"status": word} | ({"reason": reason} if reason else {}), status)


def _error(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(body, ensure_ascii=False)
    return Response(text, status, headers=headers, media_type="application/json")


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _error(error.status, error.body(), error.headers())


async def _refuse_route(request: Request, error: Exception) -> Response:
    """404 and 405 of the router."""
    assert isinstance(error, HTTPException)
    known = f"{CHAT}, {COMPLETIONS}, /v1/models, /health, /ready and /metrics"
    message = f"{request.method} {request.url.path}: {error.detail}. This server knows {known}."
    return _error(
        error.status_code, ApiError(HTTPStatus(error.status_code), message, "unknown_url").body(), error.headers
    )


async def _nobody(_: Request, __: Exception) -> Response:
    """The client has left: what is returned reaches nobody. 499 is nginx's code for it."""
    return Response(status_code=499)


async def _unexpected(_: Request, error: Exception) -> Response:
    """A fault of this layer; the traceback goes to the log."""
    return _error(500, engine_failed(f"an unexpected {type(error).__name__}").body())
