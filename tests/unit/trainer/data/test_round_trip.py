"""What a server makes of the messages is what the model was trained on, token by token, at every answer."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from falcon_trainer.data.formats import Conversion
from falcon_trainer.data.served import check_served
from falcon_trainer.data.tokenization import Encoder, Tokens, load_tokenizer, travelling
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.conversations import END, OWN_TEMPLATES, chats, conversion, messages, said
from tests.unit.trainer.workshop import FALCON_TOKENIZER, tokenizer

TEMPLATES: dict[str, str | None] = {"the recipe's": None, **OWN_TEMPLATES}


def small() -> Any:
    """The tests' tokenizer, a copy that may change."""
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, eos_token=END)


TOKENIZERS = {"a small one": cache(small)}
if FALCON_TOKENIZER.exists():
    TOKENIZERS["Falcon's"] = cache(lambda: load_tokenizer(FALCON_TOKENIZER))

each_template = pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
each_tokenizer = pytest.mark.parametrize("base", TOKENIZERS.values(), ids=TOKENIZERS)


def carried(base: Any, converted: Conversion) -> Any:
    """The tokenizer as it is saved with the adapter."""
    return travelling(base(), converted.chat_template)


def served(carrier: Any, turns: list[dict[str, Any]]) -> list[int]:
    """The ids that a server would give to the model."""
    return list(carrier.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])


def trained(
    carrier: Any, converted: Conversion, record: dict[str, Any], train_on: Literal["completion", "all"] = "completion"
) -> Iterator[tuple[list[int], list[int]]]:
    """Prompt and answer of each stretch that is trained."""
    for part in next(Encoder(carrier, train_on).encode([converted.document(record)])):
        for start, end in spans(part):
            yield part.ids[:start], part.ids[start:end]


def spans(part: Tokens) -> Iterator[tuple[int, int]]:
    return zip(part.trained[::2], part.trained[1::2], strict=True)


@each_tokenizer
@each_template
@settings(deadline=None, max_examples=40)
@given(turns=chats())
@example(
    turns=messages(
        ("user", "a"), ("assistant", "\n\n b"), ("user", "c"), ("assistant", "  d"), ("user", "e"), ("assistant", "f")
    )
)
def test_every_answer_of_a_chat_follows_the_served_prompt(
    base: Any, template: str | None, turns: list[dict[str, Any]]
) -> None:
    converted = conversion(format="chat", template=template)
    record = {"messages": turns}
    converted.document(record)
    carrier = carried(base, converted)
    answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    for index, (prompt, answer) in zip(answers, trained(carrier, converted, record), strict=True):
        assert prompt == served(carrier, turns[:index])
        assert carrier.decode(answer).strip() == (turns[index]["content"] + END).strip()
    assert prompt == served(carrier, converted.sample(record)["messages"] or [])


@each_tokenizer
@each_template
@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["dolly", "alpaca", "sharegpt", "prompt-completion"]), said, said, said)
def test_the_answer_of_a_record_follows_the_served_prompt(
    base: Any, template: str | None, name: str, question: str, context: str, answer: str
) -> None:
    records: dict[str, dict[str, Any]] = {
        "dolly": {"instruction": question, "context": context, "response": answer},
        "alpaca": {"instruction": question, "input": context, "output": answer},
        "sharegpt": {
            "system": context,
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
        },
        "prompt-completion": {
            "prompt": messages(("system", context), ("user", question)),
            "completion": messages(("assistant", answer)),
        },
    }
    record, converted = records[name], conversion(format=name, template=template)
    sample = converted.sample(record)
    carrier = carried(base, converted)
    ((prompt, _),) = trained(carrier, converted, record)
    assert prompt == served(carrier, sample["messages"] or [])
    if sample["message"] is not None:
        assert prompt == served(carrier, messages(("user", sample["message"])))


@each_tokenizer
@settings(deadline=None, max_examples=20)
@given(said, said)
def test_a_completion_follows_the_served_prompt_where_there_is_no_template(
    base: Any, prompt: str, completion: str
) -> None:
    record = {"prompt": prompt, "completion": completion}
    converted = conversion(format="prompt-completion")
    carrier = carried(base, converted)
    assert carrier.chat_template is None
    ((read, answer),) = trained(carrier, converted, record)
    assert read == carrier(prompt)["input_ids"]
    assert carrier.decode(answer) == completion + END


@each_tokenizer
@each_template
@settings(deadline=None, max_examples=20)
@given(turns=chats())
def test_with_train_on_all_the_same_tokens_are_trained_once_but_the_first(
    base: Any, template: str | None, turns: list[dict[str, Any]]
) -> None:
    converted = conversion(format="chat", template=template)
    document = converted.document({"messages": turns})
    carrier = carried(base, converted)
    parts = next(Encoder(carrier, "all").encode([document]))
    told = "".join(carrier.decode(part.ids[start:end]) for part in parts for start, end in spans(part))
    whole = "".join(segment.text for segment in document)
    assert carrier.decode(parts[0].ids[:1]) + told == whole or "\ufffd" in told  # a first token of half a character


@each_template
def test_a_saved_tokenizer_builds_the_same_prompts(tmp_path: Path, template: str | None) -> None:
    converted = conversion(format="chat", template=template)
    turns = messages(("system", "s"), ("user", " a\n"), ("assistant", "\n\nb "), ("user", "c"), ("assistant", "d"))
    converted.document({"messages": turns})
    carrier = carried(small, converted)
    carrier.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    *_, (prompt, _) = trained(carrier, converted, {"messages": turns})
    assert served(saved, turns[:-1]) == prompt
    assert (saved.chat_template, len(saved), saved.pad_token) == (
        converted.chat_template,
        len(tokenizer()),
        ">>PREFIX<<",
    )


@pytest.mark.skipif(not FALCON_TOKENIZER.exists(), reason="the real records are not beside the checkout")
def test_real_records_follow_their_served_prompts() -> None:
    real = FALCON_TOKENIZER.parent
    dolly = [json.loads(line) for line in (real / "dolly-sample.jsonl").read_text().splitlines()]
    alpaca = json.loads((real / "code-alpaca-2k.json").read_text())[::10]
    for records, name in ((dolly, "dolly"), (alpaca, "alpaca")):
        converted = conversion()
        for record in records:
            sample = converted.sample(record)
            carrier = carried(TOKENIZERS["Falcon's"], converted)
            ((prompt, answer),) = trained(carrier, converted, record)
            assert prompt == served(carrier, messages(("user", sample["message"] or "")))
            assert carrier.decode(answer) == record["response" if name == "dolly" else "output"] + END
        assert converted.format == name


RECORDS: dict[str, dict[str, Any]] = {
    "dolly": {"instruction": "a", "context": "b", "response": "c"},
    "a chat": {"messages": messages(("user", "a"), ("assistant", "\n\nb"), ("user", "c"), ("assistant", "d"))},
    "a prompt with its completion": {"prompt": "a", "completion": "b"},
    "a text": {"text": "carp live in ponds"},
}


@each_tokenizer
@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_the_check_before_training_passes_falcons_tokenizers(base: Any, record: dict[str, Any]) -> None:
    converted = conversion()
    converted.document(record)
    check_served(carried(base, converted), converted, [record])


def test_the_check_finds_a_tokenizer_that_puts_a_token_before_each_text() -> None:
    backend = Tokenizer.from_str(tokenizer().backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(single=">>PREFIX<< $A", special_tokens=[(">>PREFIX<<", 1)])
    converted = conversion(format="text")
    carrier = travelling(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END), None)
    with pytest.raises(StageError, match=r"reads a prompt as \['>>PREFIX<<', .* when it is served") as caught:
        check_served(carrier, converted, [{"text": "carp live in ponds"}])
    assert (caught.value.code, caught.value.reason) == (ExitCode.NO_INPUT, "TokenizerNotUsable")
