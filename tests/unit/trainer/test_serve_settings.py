"""What the spec's `serve` changes of the endpoint: its token, its length, its sampling, its queue."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from falcon_trainer.serve.authorization import Guard
from tests.unit.trainer.serve_process import ALIAS, RUN, Server, served

KEY = "sk-0123456789"
PROMPT = "Give three tips"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a token, and is told how to sample."""
    settings = {
        **{"alias": ALIAS, "maxModelLength": 64, "apiKeySecretRef": {"name": "key", "key": "token"}},
        "args": ["--dtype", "bfloat16", "--threads", "1", "--temperature", "0"],
    }
    env = {"FALCON_GRACE_SECONDS": "15", "FALCON_LINGER_SECONDS": "0", "FALCON_API_KEY": KEY + "\n"}
    with served(tmp_path_factory.mktemp("guarded"), serve=settings, **env) as running:
        yield running.until_ready()


def client_of(server: Server, key: str = KEY) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=120)


def test_the_token_opens_the_api(guarded: Server) -> None:
    client = client_of(guarded)
    assert [model.id for model in client.models.list()] == [RUN, ALIAS]
    assert client.completions.create(model=ALIAS, prompt=PROMPT, max_tokens=2).choices[0].finish_reason == "length"


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{RUN}", "/v1/chat/completions", "/v1/no-such-path"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer sk-wrong"}])
def test_without_the_token_the_api_is_closed(guarded: Server, path: str, headers: dict[str, str]) -> None:
    response = httpx.get(guarded.url + path, headers=headers)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert KEY not in response.text


def test_the_official_client_raises_its_authentication_error(guarded: Server) -> None:
    with pytest.raises(openai.AuthenticationError):
        client_of(guarded, "sk-wrong").completions.create(model=RUN, prompt=PROMPT)


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_the_kubelet_and_prometheus_need_no_token(guarded: Server, path: str) -> None:
    assert guarded.status(path) == 200


def test_the_engine_is_told_what_concerns_it_and_not_the_token(guarded: Server) -> None:
    process = Path(f"/proc/{guarded.engine()}")
    assert "--dtype\0bfloat16" in (process / "cmdline").read_text()
    environment = (process / "environ").read_text().split("\0")
    assert "OMP_NUM_THREADS=1" in environment
    assert not any(KEY in variable for variable in environment)


def test_the_length_that_was_asked_for_limits_prompt_and_answer(guarded: Server) -> None:
    client = client_of(guarded)
    assert [model.to_dict()["max_model_len"] for model in client.models.list()] == [64, 64]
    with pytest.raises(openai.BadRequestError, match="maximum context length is 64 tokens") as caught:
        client.completions.create(model=RUN, prompt=PROMPT, max_tokens=64)
    assert caught.value.code == "context_length_exceeded"


def test_a_request_that_says_nothing_of_sampling_is_sampled_as_the_arguments_say(guarded: Server) -> None:
    client = client_of(guarded)
    settings: dict[str, Any] = {"model": RUN, "prompt": PROMPT, "max_tokens": 20}
    said_nothing = {client.completions.create(**settings).choices[0].text for _ in range(2)}
    assert said_nothing == {client.completions.create(**settings, temperature=0).choices[0].text}
    assert client.completions.create(**settings, temperature=2, seed=1).choices[0].text not in said_nothing


@pytest.mark.parametrize(
    ("header", "let_in"),
    [
        (b"Bearer sk-1", True),
        (b"bearer sk-1", True),
        (b"Bearer  sk-1 ", True),
        (b"Bearer sk-12", False),
        (b"Bearer sk-", False),
        (b"Bearer", False),
        (b"sk-1", False),
        (b"Basic sk-1", False),
        ("Bearer sk-1ä".encode(), False),
        (None, False),
    ],
)
def test_only_the_whole_token_opens(header: bytes | None, let_in: bool) -> None:
    assert (Guard("sk-1").refusal(header) is None) == let_in
