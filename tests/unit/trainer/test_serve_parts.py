"""The serving layer's pure parts: request schema, sampling, stop sequences, health, turns."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.serve.answers import Answer, Usage
from falcon_trainer.serve.engine import EngineError, _piece
from falcon_trainer.serve.errors import ApiError
from falcon_trainer.serve.health import PROBE_SECONDS, RECENT_SECONDS, Health
from falcon_trainer.serve.model import ServedModel
from falcon_trainer.serve.question import chat_question, completion_question
from falcon_trainer.serve.schema import ChatAsk, CompletionAsk, parse
from falcon_trainer.serve.stops import StopFilter
from falcon_trainer.serve.turns import Turns

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT: dict[str, Any] = {"model": "m", "prompt": "hi"}


class Words:
    """A tokenizer of words; as a chat template it puts one word before the messages."""

    chat_template = "yes"

    def __call__(self, prompt: str) -> dict[str, list[int]]:
        return {"input_ids": [0] * len(prompt.split())}

    def apply_chat_template(self, messages: list[dict[str, str]], **_: object) -> dict[str, list[int]]:
        return self(" ".join(["template", *(message["content"] for message in messages)]))


def model(sampling: dict[str, float] | None = None) -> ServedModel:
    return ServedModel(name="m", tokenizer=Words(), positions=100, sampling=sampling or {})


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "max_tokens of zero": ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    "max_tokens that is a text": ({"max_tokens": "5"}, "max_tokens", "invalid_value"),
    "max_tokens that is true": ({"max_tokens": True}, "max_tokens", "invalid_value"),
    "max_tokens with a fraction": ({"max_tokens": 1.5}, "max_tokens", "invalid_value"),
    "max_completion_tokens below one": ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
    "a negative temperature": ({"temperature": -0.1}, "temperature", "invalid_value"),
    "a temperature that is no number": ({"temperature": float("nan")}, "temperature", "invalid_value"),
    "a top_p of zero": ({"top_p": 0}, "top_p", "invalid_value"),
    "a top_p above one": ({"top_p": 1.1}, "top_p", "invalid_value"),
    "a seed beyond 64 bits": ({"seed": 2**63}, "seed", "invalid_value"),
    "an empty stop sequence": ({"stop": ["x", ""]}, "stop[1]", "invalid_value"),
    "five stop sequences": ({"stop": list("abcde")}, "stop", "invalid_value"),
    "a stream that is a text": ({"stream": "yes"}, "stream", "invalid_value"),
    "several answers": ({"n": 2}, "n", "unsupported_value"),
    "a presence penalty": ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_value"),
    "a frequency penalty": ({"frequency_penalty": -1}, "frequency_penalty", "unsupported_value"),
    "biased tokens": ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_value"),
    "log probabilities": ({"logprobs": True}, "logprobs", "unsupported_value"),
    "tools": ({"tools": [{"type": "function"}]}, "tools", "unsupported_value"),
    "an answer in JSON": ({"response_format": {"type": "json_object"}}, "response_format.type", "invalid_value"),
    "no messages": ({"messages": []}, "messages", "invalid_value"),
    "messages that are a text": ({"messages": "hi"}, "messages", "invalid_value"),
    "a message without a role": ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
    "a message with a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content",
        "invalid_value",
    ),
    "an unknown field": ({"surprise": 1}, "surprise", "unknown_parameter"),
}


@pytest.mark.parametrize(("change", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_ignored_or_break_the_engine_is_refused_by_name(
    change: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(ApiError) as caught:
        parse(ChatAsk, json.dumps(CHAT | change).encode())
    assert (caught.value.status, caught.value.code) == (400, code)
    assert (caught.value.param or "").startswith(param)
    assert caught.value.message.startswith(caught.value.param or "?")


HARMLESS: dict[str, dict[str, Any]] = {
    "values that change nothing": {
        **{"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "logprobs": False},
        **{"top_logprobs": 0, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "store": False},
    },
    "who asks": {"user": "somebody"},
    "fields that are null": {"max_tokens": None, "stop": None, "surprise": None},
    "whole numbers for real ones": {"temperature": 1, "top_p": 1},
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_changes_no_answer_is_accepted(change: dict[str, Any]) -> None:
    parse(ChatAsk, json.dumps(CHAT | change).encode())


@pytest.mark.parametrize(
    ("prompt", "accepted"),
    [("hi", True), (["hi"], True), (["a", "b"], False), ([1, 2], False), (7, False), ([], False)],
)
def test_a_completion_has_one_prompt_that_is_a_text(prompt: object, accepted: bool) -> None:
    body = json.dumps(TEXT | {"prompt": prompt}).encode()
    if accepted:
        assert parse(CompletionAsk, body).prompt == "hi"
    else:
        with pytest.raises(ApiError, match="prompt"):
            parse(CompletionAsk, body)


SAMPLING: dict[str, tuple[dict[str, Any], dict[str, float], dict[str, Any]]] = {
    "OpenAI's defaults": ({}, {}, {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}),
    "temperature 0 is greedy": ({"temperature": 0, "top_p": 0.5}, {}, {"do_sample": False}),
    "what is asked": (
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 0.2},
        {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0},
    ),
    "what the model asks for": (
        {},
        {"temperature": 0.6, "top_p": 0.95, "top_k": 20},
        {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20},
    ),
}


@pytest.mark.parametrize(("asked", "of_model", "expected"), SAMPLING.values(), ids=SAMPLING)
def test_sampling_told_to_the_engine(
    asked: dict[str, Any], of_model: dict[str, float], expected: dict[str, Any]
) -> None:
    question = completion_question(CompletionAsk.model_validate(TEXT | asked), model(of_model))
    body = question.engine_body()
    assert json.loads(body["generation_config"]) == expected | {"max_new_tokens": 16}
    assert body["stream"] is True
    assert "model" not in body


@pytest.mark.parametrize(
    ("prompt", "asked", "expected"),
    {
        "a chat may fill what is left": (9, None, 90),
        "max_tokens is obeyed": (9, 90, 90),
        "one token more does not fit": (9, 91, None),
        "the last position": (98, None, 1),
        "no position is left": (99, None, None),
    }.values(),
)
def test_room_for_a_chats_answer_among_100_positions(prompt: int, asked: int | None, expected: int | None) -> None:
    messages = [{"role": "user", "content": "w " * prompt}]
    ask = ChatAsk.model_validate(CHAT | {"messages": messages, "max_tokens": asked})
    if expected is None:
        with pytest.raises(ApiError, match="maximum context length is 100 tokens") as caught:
            chat_question(ask, model())
        assert caught.value.code == "context_length_exceeded"
    else:
        assert chat_question(ask, model()).max_tokens == expected


def test_the_default_of_a_completion_is_cut_to_what_fits_and_a_wish_is_not() -> None:
    nearly_full = TEXT | {"prompt": "w " * 95}
    assert completion_question(CompletionAsk.model_validate(nearly_full), model()).max_tokens == 5
    with pytest.raises(ApiError):
        completion_question(CompletionAsk.model_validate(nearly_full | {"max_tokens": 6}), model())


def test_max_completion_tokens_goes_before_max_tokens() -> None:
    ask = ChatAsk.model_validate(CHAT | {"max_tokens": 7, "max_completion_tokens": 3})
    assert chat_question(ask, model()).max_tokens == 3


letters = st.text(alphabet="ab", max_size=12)


@given(st.lists(letters, max_size=8), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_a_stop_filter_passes_exactly_what_stands_before_the_first_stop(pieces: list[str], stops: list[str]) -> None:
    stop_filter = StopFilter(stops)
    passed = "".join([*(stop_filter.feed(piece) for piece in pieces), stop_filter.rest()])
    text = "".join(pieces)
    # The stream ends with the piece in which a stop sequence is complete: later pieces never come.
    positions = [text.find(stop) for stop in stops if stop in text]
    if not positions:
        assert (passed, stop_filter.stopped) == (text, False)
    else:
        assert stop_filter.stopped
        assert text.startswith(passed)
        assert not any(stop in passed for stop in stops)
        assert any(text[len(passed) :].startswith(stop) for stop in stops)


def test_only_text_that_may_begin_a_stop_is_held_back() -> None:
    stop_filter = StopFilter(["###"])
    assert [stop_filter.feed(piece) for piece in ("a", "b#", "c", "##", "#d")] == ["a", "b", "#c", "", ""]
    assert stop_filter.stopped


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Watched:
    clock: Clock = field(default_factory=Clock)
    health: Health = field(init=False)

    def __post_init__(self) -> None:
        self.health = Health(clock=self.clock)


def test_readiness_rests_on_tokens_and_nothing_else() -> None:
    watched = Watched()
    assert watched.health.unready() == "the model is being loaded"
    watched.health.asked()
    assert not watched.health.loaded
    watched.health.token()
    assert watched.health.unready() is None
    watched.clock.now += RECENT_SECONDS - 1
    assert watched.health.unready() is None
    watched.clock.now += 1
    assert "no token for 120 s" in (watched.health.unready() or "")
    watched.health.token()
    assert watched.health.unready() is None
    watched.health.draining = True
    assert watched.health.unready() == "this server is stopping"


def test_an_idle_engine_is_asked_before_its_readiness_ends() -> None:
    watched = Watched()
    assert watched.health.probe_due()
    watched.health.token()
    assert not watched.health.probe_due()
    watched.clock.now += PROBE_SECONDS
    assert watched.health.probe_due()
    assert PROBE_SECONDS * 2 < RECENT_SECONDS


def test_an_engine_is_stuck_when_it_owes_a_token_for_too_long_and_not_while_it_gives_some_or_is_idle() -> None:
    watched = Watched()
    watched.clock.now += 10_000
    assert watched.health.stuck(900) is None
    watched.health.asked()
    watched.clock.now += 899
    assert watched.health.stuck(900) is None
    watched.health.token()
    watched.clock.now += 899
    assert watched.health.stuck(900) is None
    watched.clock.now += 1
    assert "900 s" in (watched.health.stuck(900) or "")
    watched.health.answered()
    assert watched.health.stuck(900) is None


async def test_turns_come_in_order_and_one_at_a_time_and_beyond_the_limit_clients_are_sent_away() -> None:
    turns = Turns(most_waiting=2)
    order: list[int] = []
    go_on = asyncio.Event()

    async def take(number: int) -> None:
        async with turns.turn():
            order.append(number)
            await go_on.wait()

    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(take(number)))
        await asyncio.sleep(0)
    assert (order, turns.waiting, turns.busy) == ([0], 2, True)
    with pytest.raises(ApiError) as caught:
        await take(3)
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert caught.value.headers() == {"Retry-After": "10"}
    tasks[1].cancel()
    await asyncio.sleep(0)
    assert turns.waiting == 1
    go_on.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2]
    assert not turns.busy


@pytest.mark.parametrize(
    "event", ['{"error": "boom"}', '{"error": "a "quoted" word"}', "[DONE", '{"choices": []}', "[1]", "null"]
)
def test_an_event_of_the_engine_that_is_no_piece_is_its_error(event: str) -> None:
    with pytest.raises(EngineError):
        _piece(event)


def test_answers_have_openais_form() -> None:
    chat = Answer("chat", "m", created=5, id="chatcmpl-1")
    body = chat.whole("hello", "stop", Usage(3, 2))
    assert body["choices"][0] == {
        **{"index": 0, "message": {"role": "assistant", "content": "hello"}},
        **{"logprobs": None, "finish_reason": "stop"},
    }
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    event = json.loads(chat.piece("ü").removeprefix("data: "))
    assert (event["object"], event["choices"][0]["delta"]) == ("chat.completion.chunk", {"content": "ü"})
    text = Answer("completion", "m", created=5)
    assert text.opening() is None
    assert text.id.startswith("cmpl-")
    assert json.loads(text.closing("length").removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
