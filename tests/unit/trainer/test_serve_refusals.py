"""What the endpoint refuses, and in which words: OpenAI's form, which the official client understands."""

from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.unit.trainer.serve_process import POSITIONS, RUN, Server

CHAT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Why is the sky blue?"}]
PROMPT = "Give three tips"
LONG = "sky " * POSITIONS
REFUSED: dict[str, tuple[str, dict[str, Any], int, str | None, str]] = {
    "another model": ("chat", {"model": "gpt-5"}, 404, "model", "model_not_found"),
    "no model": ("chat", {"model": None}, 400, "model", "missing_required_parameter"),
    "a prompt longer than the context": ("completion", {"prompt": LONG}, 400, "prompt", "context_length_exceeded"),
    "a chat longer than the context": (
        "chat",
        {"messages": [{"role": "user", "content": LONG}]},
        400,
        "messages",
        "context_length_exceeded",
    ),
    "an answer longer than the context": (
        "chat",
        {"max_tokens": POSITIONS},
        400,
        "messages",
        "context_length_exceeded",
    ),
    "a role that the template does not know": (
        "chat",
        {"messages": [{"role": "tool", "content": "x"}]},
        400,
        "messages[0].role",
        "invalid_value",
    ),
    "an empty prompt": ("completion", {"prompt": ""}, 400, "prompt", "invalid_value"),
    "max_tokens of -1": ("completion", {"max_tokens": -1}, 400, "max_tokens", "invalid_value"),
    "a temperature that is too high": ("chat", {"temperature": 3}, 400, "temperature", "invalid_value"),
    "n of 2": ("chat", {"n": 2}, 400, "n", "unsupported_value"),
    "logprobs": ("chat", {"logprobs": True}, 400, "logprobs", "unsupported_value"),
    "logprobs of a completion": ("completion", {"logprobs": 1}, 400, "logprobs", "unsupported_value"),
    "stream options without a stream": (
        "chat",
        {"stream_options": {"include_usage": True}},
        400,
        "stream_options",
        "invalid_value",
    ),
    "a field that nobody knows": ("completion", {"best_wishes": 1}, 400, "best_wishes", "unknown_parameter"),
}
BASE: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": RUN, "messages": CHAT}),
    "completion": ("/v1/completions", {"model": RUN, "prompt": PROMPT}),
}


@pytest.mark.parametrize(("kind", "change", "status", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_a_request_that_cannot_be_answered_is_refused_by_name(
    server: Server, kind: str, change: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    path, body = BASE[kind]
    response = httpx.post(server.url + path, json=body | change, timeout=30)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    {
        "half a JSON": (b'{"model": "', 400, "invalid_json"),
        "nothing": (b"", 400, "invalid_json"),
        "a list": (b"[]", 400, "invalid_value"),
        "bytes that are no text": (b"\xff\xfe", 400, "invalid_json"),
        "five megabytes": (b'{"prompt": "' + b"x" * (5 << 20) + b'"}', 413, "request_too_large"),
    }.values(),
)
def test_a_body_that_is_no_request_is_refused(server: Server, content: bytes, status: int, code: str) -> None:
    response = httpx.post(f"{server.url}/v1/completions", content=content, timeout=30)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_the_official_client_raises_the_errors_it_documents(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=RUN, prompt=PROMPT, max_tokens=-1)
    assert (caught.value.param, caught.value.code) == ("max_tokens", "invalid_value")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=CHAT, stream=True)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/chat/completions", 405), ("POST", "/v1/embeddings", 404)]
)
def test_other_paths_are_refused_in_the_same_form(server: Server, method: str, path: str, status: int) -> None:
    response = httpx.request(method, server.url + path)
    assert response.status_code == status
    assert "/v1/chat/completions" in response.json()["error"]["message"]
