"""From a record to its text, format by format: what is recognised, what is printed, and what of it is trained."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_trainer.data.formats import Conversion, InvalidRecord
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.conversations import CHATML, END, chats, conversion, messages, said, text_of

DOLLY = {"instruction": "Name a fish.", "context": "", "response": "Carp"}
ALPACA = {"instruction": "Name a fish.", "input": "Of ponds.", "output": "Carp"}
CHAT = {"messages": messages(("system", "Be brief."), ("user", "Name a fish."), ("assistant", "Carp"))}
SHAREGPT = {"conversations": [{"from": "human", "value": "Name a fish."}, {"from": "gpt", "value": "Carp"}]}
PAIR = {"prompt": "A fish: ", "completion": "carp"}
CONVERSATIONAL = {"prompt": messages(("user", "Name a fish.")), "completion": messages(("assistant", "Carp"))}
TEXT = {"text": "Carp live in ponds."}

ASKED = "### Instruction\nName a fish.\n\n### Answer\n"
CARP = f"[[Carp{END}]]"

PRINTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "dolly without a context": (DOLLY, "dolly", ASKED + CARP),
    "dolly with a context": (
        DOLLY | {"context": "Of ponds. "},
        "dolly",
        f"### Instruction\nName a fish.\n\n### Context\nOf ponds. \n\n### Answer\n{CARP}",
    ),
    "alpaca, its input where dolly has the context": (
        ALPACA,
        "alpaca",
        f"### Instruction\nName a fish.\n\n### Context\nOf ponds.\n\n### Answer\n{CARP}",
    ),
    "alpaca as the Hub has it, with the whole prompt beside it": (
        ALPACA | {"input": "", "text": "…"},
        "alpaca",
        ASKED + CARP,
    ),
    "a chat, whose system text opens the instruction": (
        CHAT,
        "chat",
        f"### Instruction\nBe brief.\n\nName a fish.\n\n### Answer\n{CARP}",
    ),
    "a chat beside the prompt it was made from": (
        CHAT | {"prompt": "Name a fish."},
        "chat",
        "### Instruction\nBe brief.\n\nName a fish.\n\n### Answer\n" + CARP,
    ),
    "a chat of several turns, of which every answer is trained": (
        {"messages": messages(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))},
        "chat",
        f"### Instruction\na\n\n### Answer\n[[b{END}]]\n\n### Instruction\nc\n\n### Answer\n[[d{END}]]",
    ),
    "an answer of weight 0 is read and not trained": (
        {
            "messages": [
                *messages(("user", "a")),
                {"role": "assistant", "content": "b", "weight": 0},
                *messages(("user", "c"), ("assistant", "d")),
            ]
        },
        "chat",
        f"### Instruction\na\n\n### Answer\nb{END}\n\n### Instruction\nc\n\n### Answer\n[[d{END}]]",
    ),
    "content in parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Name "}, {"type": "text", "text": "a fish."}]},
                *messages(("assistant", "Carp")),
            ]
        },
        "chat",
        ASKED + CARP,
    ),
    "an empty system text says nothing": (
        {"messages": messages(("system", " "), ("user", "Name a fish."), ("assistant", "Carp"))},
        "chat",
        ASKED + CARP,
    ),
    "several messages before an answer are one instruction": (
        {"messages": messages(("user", "a"), ("system", "s"), ("user", "b"), ("assistant", "c"))},
        "chat",
        f"### Instruction\na\n\ns\n\nb\n\n### Answer\n[[c{END}]]",
    ),
    "a chat that the assistant opens": (
        {"messages": messages(("assistant", "Hello!"), ("user", "Name a fish."), ("assistant", "Carp"))},
        "chat",
        f"[[Hello!{END}]]\n\n{ASKED}{CARP}",
    ),
    "what follows the last answer is left out": (
        {"messages": messages(("user", "Name a fish."), ("assistant", "Carp"), ("user", "Thanks"))},
        "chat",
        ASKED + CARP,
    ),
    "unused fields that a table fills with nulls": (
        {
            "messages": [
                message | {"tool_calls": None, "weight": None}
                for message in messages(("user", "Name a fish."), ("assistant", "Carp"))
            ],
            "tools": None,
        },
        "chat",
        ASKED + CARP,
    ),
    "sharegpt": (SHAREGPT, "sharegpt", ASKED + CARP),
    "sharegpt with a system text beside the turns": (
        SHAREGPT | {"system": "Be brief."},
        "sharegpt",
        f"### Instruction\nBe brief.\n\nName a fish.\n\n### Answer\n{CARP}",
    ),
    "sharegpt's field with OpenAI's messages": (
        {"conversations": CHAT["messages"]},
        "sharegpt",
        "### Instruction\nBe brief.\n\nName a fish.\n\n### Answer\n" + CARP,
    ),
    "a prompt with its completion, as they are": (PAIR, "prompt-completion", "A fish: [[carp]]"),
    "a prompt with its completion, as messages": (CONVERSATIONAL, "prompt-completion", ASKED + CARP),
    "of these only the completion is trained": (
        {
            "prompt": messages(("user", "a"), ("assistant", "b"), ("user", "c")),
            "completion": messages(("assistant", "d")),
        },
        "prompt-completion",
        f"### Instruction\na\n\n### Answer\nb{END}\n\n### Instruction\nc\n\n### Answer\n[[d{END}]]",
    ),
    "a text": (TEXT, "text", "[[Carp live in ponds.]]"),
    "an answer that ends in end-of-text already": (DOLLY | {"response": f"Carp{END}"}, "dolly", ASKED + CARP),
}


@pytest.mark.parametrize(("record", "name", "printed"), PRINTED.values(), ids=PRINTED)
@pytest.mark.parametrize("named", [False, True], ids=["recognised", "named"])
def test_a_record_is_printed(record: dict[str, Any], name: str, printed: str, named: bool) -> None:
    converted = conversion(format=name if named else "auto")
    assert text_of(converted.document(record)) == printed
    assert converted.format == name


def test_aliases_of_sharegpts_roles() -> None:
    pairs = [("human", "gpt"), ("user", "assistant"), ("Human", "chatgpt"), ("user", "model"), ("human", "bot")]
    turns = [{"from": who, "value": who} for pair in pairs for who in pair]
    document = conversion().document({"conversations": turns})
    assert [segment.answer for segment in document] == [False, True] * len(pairs)


EXPLAINED = {
    "dolly": (DOLLY, "'instruction', 'context', 'response'"),
    "alpaca": (ALPACA, "'instruction', 'input', 'output'"),
    "chat": (CHAT, "'messages'"),
    "sharegpt": (SHAREGPT, "'conversations'"),
    "prompt-completion": (PAIR, "'completion'"),
    "prompts and completions of messages": (CONVERSATIONAL, "its 'prompt' is a list of messages"),
    "text": (TEXT, "'text'"),
}


@pytest.mark.parametrize(("record", "why"), EXPLAINED.values(), ids=EXPLAINED)
def test_what_was_recognised_and_why_is_logged_once(
    record: dict[str, Any], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    converted = conversion()
    assert (converted.format, converted.chat_template) == (None, None)
    converted.document(record)
    converted.document(record)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == converted.explanation
    assert line.startswith(f"dataset.format: {converted.format}, recognised by the first record: it has the field")
    assert why in line


def test_the_first_record_of_a_known_format_settles_it_for_all() -> None:
    converted = conversion()
    with pytest.raises(InvalidRecord, match="of no known format"):
        converted.document({"question": "x"})
    converted.document(DOLLY)
    with pytest.raises(InvalidRecord, match=r"'response' is missing \(it looks like a record of the format alpaca\)"):
        converted.document(ALPACA)


@pytest.mark.parametrize(("first", "then"), [(PAIR, CONVERSATIONAL), (CONVERSATIONAL, PAIR)])
def test_prompts_are_texts_in_all_records_or_messages_in_all(first: dict[str, Any], then: dict[str, Any]) -> None:
    converted = conversion(format="prompt-completion")
    converted.document(first)
    with pytest.raises(InvalidRecord, match="field 'prompt' is") as caught:
        converted.document(then)
    assert caught.value.kind == "wrong type"


@pytest.mark.parametrize(
    ("record", "templated"),
    [
        (DOLLY, True),
        (ALPACA, True),
        (CHAT, True),
        (SHAREGPT, True),
        (CONVERSATIONAL, True),
        (PAIR, False),
        (TEXT, False),
    ],
)
def test_only_conversations_have_a_chat_template(record: dict[str, Any], templated: bool) -> None:
    converted = conversion()
    converted.document(record)
    assert (converted.chat_template is not None) == templated
    assert (converted.sample(record)["messages"] is not None) == templated


def test_an_own_template_says_that_records_are_conversations() -> None:
    converted = conversion(template=CHATML)
    assert text_of(converted.document(ALPACA | {"input": ""})).startswith("<|im_start|>user\nName a fish.<|im_end|>\n")
    assert converted.chat_template == CHATML
    with pytest.raises(InvalidRecord, match="no known format: chat has"):
        conversion(template=CHATML).document(TEXT)
    with pytest.raises(StageError, match="records of the format text are no conversations") as caught:
        conversion(template=CHATML, format="text")
    assert (caught.value.code, caught.value.reason) == (ExitCode.CONFIGURATION, "TemplateNotUsable")


SAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dolly": (
        DOLLY | {"context": "Of ponds."},
        {
            "prompt": "### Instruction\nName a fish.\n\n### Context\nOf ponds.\n\n### Answer\n",
            "answer": "Carp",
            "message": "Name a fish.\n\n### Context\nOf ponds.",
            "messages": messages(("user", "Name a fish.\n\n### Context\nOf ponds.")),
        },
    ),
    "a chat of several turns asks for its last answer, and no single message does": (
        {"messages": messages(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))},
        {
            "prompt": f"### Instruction\na\n\n### Answer\nb{END}\n\n### Instruction\nc\n\n### Answer\n",
            "answer": "d",
            "message": None,
            "messages": messages(("user", "a"), ("assistant", "b"), ("user", "c")),
        },
    ),
    "a prompt with its completion": (PAIR, {"prompt": "A fish: ", "answer": "carp", "message": None, "messages": None}),
    "a text, by its beginning": (
        TEXT,
        {"prompt": "Carp live", "answer": " in ponds.", "message": None, "messages": None},
    ),
    "a text of one word": ({"text": "Carp"}, {"prompt": "Ca", "answer": "rp", "message": None, "messages": None}),
    "a text of one character": ({"text": "C"}, {"prompt": "C", "answer": "", "message": None, "messages": None}),
}


@pytest.mark.parametrize(("record", "sample"), SAMPLES.values(), ids=SAMPLES)
def test_a_sample_is_a_question_and_its_answer(record: dict[str, Any], sample: dict[str, Any]) -> None:
    assert conversion().sample(record) == sample


@settings(deadline=None, max_examples=50)
@given(chats())
def test_no_text_of_a_conversation_is_lost_or_trained_that_the_assistant_did_not_say(
    turns: list[dict[str, str]],
) -> None:
    document = conversion().document({"messages": turns})
    answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    assert [segment.text for segment in document if segment.answer] == [answer + END for answer in answers]
    read = "".join(segment.text for segment in document if not segment.answer)
    for turn in turns:
        if turn["role"] != "assistant":
            assert turn["content"] in read
    assert read.count("### Answer\n") >= len(answers)


@settings(deadline=None, max_examples=50)
@given(said, said, st.sampled_from([{}, {"context": ""}, {"context": None}, {"context": "c"}, {"context": " \n"}]))
def test_a_dolly_record_is_the_recipes_text_to_the_letter(
    instruction: str, response: str, context: dict[str, str | None]
) -> None:
    record = {"instruction": instruction, "response": response, **context}
    assert "".join(segment.text for segment in conversion().document(record)) == recipe(record) + END


def recipe(sample: dict[str, Any]) -> str:
    """`format_dolly` of training/deepseed-falcon-180b-lora-fa.ipynb, where every record has a context."""
    instruction = f"### Instruction\n{sample['instruction']}"
    context = f"### Context\n{sample['context']}" if len(sample.get("context") or "") > 0 else None
    response = f"### Answer\n{sample['response']}"
    return "\n\n".join([part for part in [instruction, context, response] if part is not None])


def test_a_conversion_that_knows_no_tokenizer_yet_takes_falcons_end_of_text() -> None:
    from falcon_trainer.config import Dataset

    dataset = Dataset.model_validate({"sources": [{"uri": "pvc://data/x.jsonl"}]})
    assert text_of(Conversion.of(dataset, None).document(DOLLY)) == ASKED + CARP
    assert text_of(Conversion.of(dataset, "</s>").document(DOLLY)) == f"{ASKED}[[Carp</s>]]"
