"""Files of prompts: what is asked of each line, and what is said of one that asks nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from falcon_trainer.generate.prompts import of_texts, read_prompts
from falcon_trainer.outcome import ExitCode, StageError

USER = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "Because."}
RECORDS: dict[str, tuple[dict[str, Any], str, list[dict[str, str]] | None]] = {
    "a prompt": ({"prompt": "Why?", "completion": "Because."}, "Why?", None),
    "a text": ({"text": " Once upon"}, " Once upon", None),
    "an instruction": ({"instruction": "Why?", "response": "Because."}, "", [USER]),
    "Dolly's context": (
        {"instruction": "Why?", "context": "Physics."},
        "",
        [{"role": "user", "content": "Why?\n\n### Context\nPhysics."}],
    ),
    "Alpaca's input": (
        {"instruction": "Why?", "input": "Physics."},
        "",
        [{"role": "user", "content": "Why?\n\n### Context\nPhysics."}],
    ),
    "an empty context": ({"instruction": "Why?", "context": ""}, "", [USER]),
    "messages": ({"messages": [USER]}, "", [USER]),
    "messages with an answer at their end": ({"messages": [USER, ANSWER, USER, ANSWER]}, "", [USER, ANSWER, USER]),
    "a prompt of messages": ({"prompt": [USER], "completion": [ANSWER]}, "", [USER]),
    "ShareGPT's turns": (
        {
            "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}],
            "system": "Short.",
        },
        "",
        [{"role": "system", "content": "Short."}, USER],
    ),
}


@pytest.mark.parametrize(("record", "text", "messages"), RECORDS.values(), ids=RECORDS)
def test_a_record_asks(
    tmp_path: Path, record: dict[str, Any], text: str, messages: list[dict[str, str]] | None
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps(record) + "\n\n" + json.dumps(record))
    first, second = read_prompts(file)
    assert (first.text, first.messages) == (second.text, second.messages) == (text, messages)
    assert (first.where, second.where) == ("prompts.jsonl line 1", "prompts.jsonl line 3")


def test_a_text_has_a_prompt_on_each_line_that_says_something(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffWhy?\r\n\n  \n{'no': 'record'}\nWarum grün?".encode())
    prompts = read_prompts(file)
    assert [prompt.text for prompt in prompts] == ["Why?", "{'no': 'record'}", "Warum grün?"]
    assert [prompt.where for prompt in prompts] == [f"prompts.txt line {number}" for number in (1, 4, 5)]


def test_other_kinds_of_records_are_read_as_for_training(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('[{"prompt": "a"}, {"prompt": "b"}]')
    (tmp_path / "p.csv").write_text("instruction,context\nWhy?,\n")
    assert [prompt.where for prompt in read_prompts(tmp_path / "p.json")] == ["p.json index 0", "p.json index 1"]
    assert read_prompts(tmp_path / "p.csv")[0].messages == [USER]


WRONG: dict[str, tuple[str, bytes, str]] = {
    "no JSON": ("p.jsonl", b'{"prompt": "a"}\n{"prompt"', "p.jsonl line 2: is not JSON"),
    "no object": ("p.jsonl", b'"a"', "p.jsonl line 1: is a JSON string, not an object"),
    "no known field": ("p.jsonl", b'{"question": "a"}', "p.jsonl line 1: its fields ('question') tell no prompt"),
    "an empty prompt": ("p.jsonl", b'{"prompt": " "}', "p.jsonl line 1: field 'prompt' is empty"),
    "a prompt that is a number": ("p.jsonl", b'{"prompt": 1}', "p.jsonl line 1: field 'prompt' is not a text but 1"),
    "messages of nobody": ("p.jsonl", b'{"messages": [{"content": "a"}]}', "field 'messages[0].role' is missing"),
    "an unknown role": (
        "p.jsonl",
        b'{"messages": [{"role": "tool", "content": "a"}]}',
        "p.jsonl line 1: field 'messages[0].role' is 'tool'",
    ),
    "only an answer": (
        "p.jsonl",
        b'{"messages": [{"role": "assistant", "content": "a"}]}',
        "field 'messages' holds nothing that asks for an answer",
    ),
    "no UTF-8": ("p.txt", b"good\n\xff", "p.txt line 2: is not UTF-8 text (byte 0)"),
    "nothing": ("p.txt", b"\n \n", "holds no prompt"),
    "no records": ("p.jsonl", b"", "holds no prompt"),
}


@pytest.mark.parametrize(("name", "content", "said"), WRONG.values(), ids=WRONG)
def test_what_asks_nothing_is_named_with_file_and_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError) as caught:
        read_prompts(tmp_path / name)
    assert said in caught.value.message
    assert (caught.value.code, caught.value.message[-1]) == (ExitCode.DATA, ".")


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_a_file_that_is_not_there_is_a_missing_input(tmp_path: Path, name: str) -> None:
    with pytest.raises(StageError, match=f"{name} cannot be read: No such file") as caught:
        read_prompts(tmp_path / name)
    assert caught.value.code == ExitCode.NO_INPUT


def test_prompts_of_the_command_line_are_numbered() -> None:
    assert [prompt.where for prompt in of_texts(["a", "b"])] == ["prompt 1", "prompt 2"]
    with pytest.raises(StageError, match="prompt 2: is empty"):
        of_texts(["a", " "])
