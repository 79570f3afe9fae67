"""What a client may ask, and what the engine is told of it."""

import json
from typing import Any

import pytest

from falcon_trainer.serve.errors import ApiError
from falcon_trainer.serve.model import ServedModel
from falcon_trainer.serve.question import chat_question, completion_question
from falcon_trainer.serve.schema import ChatAsk, CompletionAsk, parse

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
    return ServedModel(names=("m", "alias"), tokenizer=Words(), positions=100, sampling=sampling or {})


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
