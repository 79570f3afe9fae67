"""Records that cannot be used: which field, what kind of fault, and in which words."""

import json
from typing import Any

import pytest

from falcon_trainer.data.formats import InvalidRecord, Kind
from tests.unit.trainer.conversations import END, conversion, messages

DOLLY = {"instruction": "Name a fish.", "response": "Carp"}
ASK, ANSWER = messages(("user", "Name a fish."), ("assistant", "Carp"))


def chat(*turns: object, **beside: object) -> dict[str, Any]:
    return {"messages": list(turns), **beside}


REFUSED: dict[str, tuple[str, dict[str, Any], str, str, str]] = {
    "a missing answer": ("dolly", {"instruction": "x"}, "response", "missing field", "is missing"),
    "a missing answer of a record that is recognised": (
        "auto",
        {"instruction": "x", "context": ""},
        "response",
        "missing field",
        "is missing",
    ),
    "an instruction that is a number": (
        "dolly",
        DOLLY | {"instruction": 7},
        "instruction",
        "wrong type",
        "is not a text but 7",
    ),
    "a context that is a list": (
        "dolly",
        DOLLY | {"context": ["a"]},
        "context",
        "wrong type",
        "is not a text but ['a']",
    ),
    "an answer that is null": ("dolly", DOLLY | {"response": None}, "response", "wrong type", "is not a text but null"),
    "an answer of white space": ("dolly", DOLLY | {"response": " \n"}, "response", "no answer", "is empty"),
    "an answer of nothing but the end": (
        "dolly",
        DOLLY | {"response": END},
        "answer",
        "no answer",
        "an answer holds only end-of-text",
    ),
    "an empty instruction": ("dolly", DOLLY | {"instruction": ""}, "instruction", "empty", "is empty"),
    "half a character": (
        "dolly",
        DOLLY | {"response": "a\ud800"},
        "response",
        "not Unicode",
        r"holds half a character (\ud800 at position 1)",
    ),
    "an integer that Python cannot print": (
        "dolly",
        DOLLY | {"response": 10**5000},
        "response",
        "wrong type",
        "is not a text but ",
    ),
    "a list that is too deep to print": (
        "dolly",
        DOLLY | {"response": json.loads("[" * 900 + "]" * 900)},
        "response",
        "wrong type",
        "is not a text but [[[...]]]",
    ),
    "another format than named": (
        "alpaca",
        DOLLY,
        "output",
        "missing field",
        "is missing (it looks like a record of the format dolly)",
    ),
    "an unknown format": (
        "auto",
        {"reply": "y", "ask": 1},
        "'ask', 'reply'",
        "unknown format",
        "of no known format: chat has",
    ),
    "no field at all": ("auto", {}, "none", "unknown format", "its fields (none)"),
    "messages that are a text": (
        "chat",
        {"messages": "hi"},
        "messages",
        "wrong type",
        "is not a list of messages but 'hi'",
    ),
    "no messages": ("chat", chat(), "messages", "empty", "is empty"),
    "a message that is a text": ("chat", chat(ASK, "Carp"), "messages[1]", "wrong type", "is not a message but 'Carp'"),
    "a message without a role": ("chat", chat({"content": "x"}), "messages[0].role", "missing field", "is missing"),
    "a role that nobody has": (
        "chat",
        chat(ASK, ANSWER, {"role": "tool", "content": "42"}),
        "messages[2].role",
        "unknown role",
        "is 'tool'; known are system, developer, user, assistant",
    ),
    "a role that is a number": (
        "chat",
        chat({"role": 1, "content": "x"}),
        "messages[0].role",
        "wrong type",
        "not a text but 1",
    ),
    "a message without content": ("chat", chat({"role": "user"}), "messages[0].content", "missing field", "is missing"),
    "content that is null": (
        "chat",
        chat(ASK, {"role": "assistant", "content": None}),
        "messages[1].content",
        "wrong type",
        "not a text but null",
    ),
    "an empty question": (
        "chat",
        chat({"role": "user", "content": ""}, ANSWER),
        "messages[0].content",
        "empty",
        "is empty",
    ),
    "an empty answer": (
        "chat",
        chat(ASK, {"role": "assistant", "content": " "}),
        "messages[1].content",
        "no answer",
        "is empty",
    ),
    "a picture": (
        "chat",
        chat(
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]}, ANSWER
        ),
        "messages[0].content[1].type",
        "not supported",
        "is 'image_url'; only 'text' can be trained on",
    ),
    "a part without its text": (
        "chat",
        chat({"role": "user", "content": [{"type": "text"}]}),
        "messages[0].content[0].text",
        "missing field",
        "is missing",
    ),
    "a part that is a text": (
        "chat",
        chat({"role": "user", "content": ["a"]}),
        "messages[0].content[0]",
        "wrong type",
        "not a part of a message but 'a'",
    ),
    "a call of a tool": (
        "chat",
        chat(ASK, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}),
        "messages[1].tool_calls",
        "not supported",
        "is a call of a tool",
    ),
    "tools on offer": (
        "chat",
        chat(ASK, ANSWER, tools=[{"type": "function"}]),
        "tools",
        "not supported",
        "offers tools",
    ),
    "a weight between": (
        "chat",
        chat(ASK, ANSWER | {"weight": 0.5}),
        "messages[1].weight",
        "wrong type",
        "is 0.5, not 0 (only read) or 1 (trained)",
    ),
    "two answers in a row": (
        "chat",
        chat(ASK, ANSWER, ANSWER),
        "messages[2].role",
        "role order",
        "is an answer that follows another answer",
    ),
    "a question alone": ("chat", chat(ASK), "messages", "no answer", "holds no answer to train on"),
    "answers that are only read": (
        "chat",
        chat(ASK, ANSWER | {"weight": 0}),
        "messages",
        "no answer",
        "holds no answer to train on",
    ),
    "an answer alone": ("chat", chat(ANSWER), "messages", "no prompt", "begins with its only answer"),
    "an unknown speaker": (
        "sharegpt",
        {"conversations": [{"from": "observation", "value": "x"}]},
        "conversations[0].from",
        "unknown role",
        "is 'observation'; known are human",
    ),
    "a turn without its value": (
        "sharegpt",
        {"conversations": [{"from": "human"}]},
        "conversations[0].value",
        "missing field",
        "is missing",
    ),
    "a system text that is a list": (
        "sharegpt",
        {"conversations": [], "system": []},
        "system",
        "wrong type",
        "is not a text but []",
    ),
    "a missing completion": ("prompt-completion", {"prompt": "x"}, "completion", "missing field", "is missing"),
    "an empty prompt": ("prompt-completion", {"prompt": "", "completion": "x"}, "prompt", "empty", "is empty"),
    "an empty completion": (
        "prompt-completion",
        {"prompt": "x", "completion": ""},
        "completion",
        "no answer",
        "is empty",
    ),
    "a completion that only asks": (
        "prompt-completion",
        {"prompt": [ASK], "completion": [ASK]},
        "completion",
        "no answer",
        "holds no answer to train on",
    ),
    "an answer on both sides of the border": (
        "prompt-completion",
        {"prompt": [ASK, ANSWER], "completion": [ANSWER]},
        "completion[0].role",
        "role order",
        "follows another answer",
    ),
    "a text that is empty": ("text", {"text": "\t"}, "text", "empty", "is empty"),
    "a text that is missing": ("text", {"content": "x"}, "text", "missing field", "is missing"),
}


@pytest.mark.parametrize(("name", "record", "field", "kind", "said"), REFUSED.values(), ids=REFUSED)
def test_a_record_is_refused(name: str, record: dict[str, Any], field: str, kind: Kind, said: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        conversion(format=name).document(record)
    assert (caught.value.field, caught.value.kind) == (field, kind)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_message_that_an_own_template_refuses_is_named() -> None:
    strict = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system text') }}{% endif %}"
        "{{ m.content }}{{ eos_token if m.role == 'assistant' else ' = ' }}{% endfor %}"
    )
    converted = conversion(template=strict)
    converted.document(chat(ASK, ANSWER))
    with pytest.raises(InvalidRecord) as caught:
        converted.document(chat({"role": "system", "content": "x"}, ASK, ANSWER))
    assert (caught.value.field, caught.value.kind) == ("messages[1]", "template")
    assert "the chat template refuses it: no system text" in str(caught.value)
