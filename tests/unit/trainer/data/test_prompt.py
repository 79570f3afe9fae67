"""The prompt is the original recipe's to the letter, and the chat template renders the same text."""

import pytest
from transformers import PreTrainedTokenizerBase

from falcon_trainer.config import Dataset
from falcon_trainer.data.formats import ALPACA, DOLLY, Conversion, Document
from falcon_trainer.data.prompt import CHAT_TEMPLATE
from falcon_trainer.data.tokenization import travelling
from tests.unit.trainer.workshop import tokenizer

WITHOUT_CONTEXT = "### Instruction\nName a fish.\n\n### Answer\n"
WITH_CONTEXT = "### Instruction\nName a fish.\n\n### Context\nCarp live\n in ponds. \n\n### Answer\n"


def document(record: dict[str, str]) -> Document:
    dataset = Dataset.model_validate({"sources": [{"uri": "pvc://data/records.jsonl"}]})
    return Conversion.of(dataset, "<|endoftext|>").document(record)


def chat(*messages: tuple[str, object]) -> str:
    carrier: PreTrainedTokenizerBase = travelling(tokenizer(), CHAT_TEMPLATE)
    turns = [{"role": role, "content": content} for role, content in messages]
    text = carrier.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        pytest.param({"instruction": "Name a fish."}, WITHOUT_CONTEXT, id="no context field"),
        pytest.param({"instruction": "Name a fish.", "context": ""}, WITHOUT_CONTEXT, id="an empty context"),
        pytest.param({"instruction": "Name a fish.", "context": None}, WITHOUT_CONTEXT, id="a null context"),
        pytest.param(
            {"instruction": "Name a fish.", "context": "Carp live\n in ponds. "},
            WITH_CONTEXT,
            id="a context, unstripped",
        ),
    ],
)
def test_a_dolly_record_becomes_the_recipes_prompt_and_the_chat_template_renders_the_same(
    fields: dict[str, str], prompt: str
) -> None:
    record = fields | {"response": "Carp"}
    asked, answered = document(record)
    assert (asked.text, asked.answer) == (prompt, False)
    assert (answered.text, answered.answer) == ("Carp<|endoftext|>", True)
    assert chat(("user", DOLLY.conversation(record)[0].content)) == prompt


def test_an_alpaca_record_becomes_the_same_prompt() -> None:
    record = {"instruction": "Name a fish.", "input": "Carp live\n in ponds. ", "output": "Carp"}
    assert document(record)[0].text == WITH_CONTEXT
    assert chat(("user", ALPACA.conversation(record)[0].content)) == WITH_CONTEXT


def test_earlier_turns_end_in_end_of_text() -> None:
    text = chat(("user", "Name a fish."), ("assistant", "Carp"), ("user", "Another."))
    assert text == f"{WITHOUT_CONTEXT}Carp<|endoftext|>\n\n### Instruction\nAnother.\n\n### Answer\n"


def test_system_text_opens_the_next_instruction() -> None:
    text = chat(("system", "Be brief."), ("user", "Name a fish."))
    assert text == "### Instruction\nBe brief.\n\nName a fish.\n\n### Answer\n"


def test_content_in_parts_is_joined() -> None:
    assert chat(("user", [{"type": "text", "text": "Name "}, {"type": "text", "text": "a fish."}])) == WITHOUT_CONTEXT


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(Exception, match="role tool"):
        chat(("tool", "42"))
