"""Records, templates and conversations for the tests of formats: how they are converted, and at random."""

from typing import Any

from hypothesis import strategies as st

from falcon_trainer.config import Dataset
from falcon_trainer.data.formats import Conversion, Document

END = "<|endoftext|>"

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As many models have it; what it prints after the end of an answer opens the next turn."""
DIALOGUE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '\\nFalcon: ' + m.content + eos_token + '\\n' }}"
    "{% else %}{{ 'User: ' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\nFalcon:' }}{% endif %}"
)
"""The text form that Falcon's own chat models were trained in: the space belongs to the answer."""
OWN_TEMPLATES = {"ChatML": CHATML, "a dialogue": DIALOGUE}


def conversion(**dataset: object) -> Conversion:
    """The conversion of a data set with these fields."""
    return Conversion.of(Dataset.model_validate({"sources": [{"uri": "pvc://data/x.jsonl"}], **dataset}), END)


def text_of(document: Document) -> str:
    """The document as one text; what is trained stands in double brackets."""
    return "".join(f"[[{segment.text}]]" if segment.answer else segment.text for segment in document)


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    """OpenAI's form of (role, content)."""
    return [{"role": role, "content": content} for role, content in turns]


# Characters of every script and kind of space that Falcon's tokenizer knows; it has no token for some control bytes.
characters = st.one_of(
    st.sampled_from("  \n\n\t#.'-<>|:a1é漢\u0301\u00a0\u2003"),
    st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"]),
)
texts = st.text(characters, min_size=1, max_size=12).filter(lambda text: bool(text.strip()) and END not in text)
spaces = st.text(st.sampled_from(" \n\t"), max_size=3)
said = st.builds("{}{}{}".format, spaces, texts, spaces)
"""Texts that often begin and end in white space, where tokenizers join what stands side by side."""


@st.composite
def chats(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Conversations: perhaps a system text, one to four exchanges, now and then several questions before an answer."""
    turns = messages(("system", draw(said))) if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        turns += messages(*(("user", draw(said)) for _ in range(draw(st.sampled_from([1, 1, 1, 2])))))
        turns += messages(("assistant", draw(said)))
    return turns
