"""Errors in OpenAI's form: {"error": {message, type, param, code}}."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any


@dataclass
class ApiError(Exception):
    """A request that gets no answer, and why."""

    status: HTTPStatus
    message: str
    code: str
    param: str | None = None
    retry_after: int | None = None
    """Seconds after which the same request may succeed."""
    challenge: str | None = None
    """How a client shows who it is (RFC 9110, WWW-Authenticate)."""

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = "invalid_request_error" if self.status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            kind = "rate_limit_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers that go with it."""
        headers = {"Retry-After": self.retry_after, "WWW-Authenticate": self.challenge}
        return {name: str(value) for name, value in headers.items() if value is not None}


def invalid(message: str, *, param: str | None, code: str = "invalid_value") -> ApiError:
    """A request that must be changed."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, code, param)


def unknown_model(asked: str, served: Sequence[str]) -> ApiError:
    """A request for a model that is not here."""
    return ApiError(
        HTTPStatus.NOT_FOUND,
        f"The model {asked!r} does not exist: this server answers for {' and '.join(map(repr, served))}.",
        "model_not_found",
        "model",
    )


def too_long(limit: int, prompt: int, completion: int, param: str) -> ApiError:
    """A request that does not fit the model's positions; the words are OpenAI's, clients look for them."""
    return invalid(
        f"This model's maximum context length is {limit} tokens. However, you requested {prompt + completion} tokens "
        f"({prompt} in the {param}, {completion} in the completion). Please reduce the length of the {param} or the "
        "completion.",
        param=param,
        code="context_length_exceeded",
    )


def not_ready(message: str) -> ApiError:
    """The server is there and the model is not, yet or any more."""
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, "model_not_ready", retry_after=5)


def queue_full(waiting: int) -> ApiError:
    """More requests wait than are worth waiting for."""
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"{waiting} requests wait for this model already. Try again later, or raise serve.replicas.",
        "queue_full",
        retry_after=10,
    )


def engine_failed(message: str) -> ApiError:
    """The engine gave no answer."""
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, f"The model could not answer: {message}", "engine_error")
