"""Own chat templates: what can be trained with, and what is refused, in which words."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from falcon_trainer.data.formats import Conversion
from falcon_trainer.data.formats.template import ChatTemplate
from falcon_trainer.data.prompt import CHAT_TEMPLATE
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.conversations import CHATML, DIALOGUE, END, chats, conversion, messages, text_of

TURNS = messages(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))

PRINTED = {
    "what follows an answer's end opens the next turn": (
        CHATML,
        f"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[b{END}]]<|im_end|>\n"
        f"<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[[d{END}]]",
    ),
    "the space before an answer may belong to it": (
        DIALOGUE,
        f"User: a\nFalcon:[[ b{END}]]\nUser: c\nFalcon:[[ d{END}]]",
    ),
    "marks for other trainers change nothing": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}"
        "{% endgeneration %}{% else %}{{ m.content }}?{% endif %}{% endfor %}",
        f"a?[[b{END}]]c?[[d{END}]]",
    ),
    "end-of-text may be written out": (
        "{% for m in messages %}{{ m.content }}{{ '<|endoftext|>' if loop.index is even else '?' }}{% endfor %}",
        f"a?[[b{END}]]c?[[d{END}]]",
    ),
    "names that no server fills may be asked for": (
        "{% if tools or documents or thinking is defined %}tools{% endif %}"
        "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' else '?' }}{% endfor %}",
        f"a?[[b{END}]]c?[[d{END}]]",
    ),
}


@pytest.mark.parametrize(("template", "printed"), PRINTED.values(), ids=PRINTED)
def test_an_own_template_prints_a_conversation(template: str, printed: str) -> None:
    assert text_of(conversion(template=template).document({"messages": TURNS})) == printed


def test_an_own_template_prints_the_records_of_every_format_of_conversations() -> None:
    asked = "User: a\n\n### Context\nb\nFalcon:"
    records: list[dict[str, Any]] = [
        {"instruction": "a", "context": "b", "response": "c"},
        {"instruction": "a", "input": "b", "output": "c"},
        {"messages": messages(("user", "a\n\n### Context\nb"), ("assistant", "c"))},
        {"conversations": [{"from": "human", "value": "a\n\n### Context\nb"}, {"from": "gpt", "value": "c"}]},
    ]
    for record in records:
        assert text_of(conversion(template=DIALOGUE).document(record)) == f"{asked}[[ c{END}]]"


EACH = "{% for m in messages %}{{ m.content }}"
REFUSED = {
    "not Jinja": ("{% for m in messages %}", "line 1 is not Jinja: Unexpected end of template"),
    "a filter that nobody has": (EACH + "{{ m | shout }}{% endfor %}", "No filter named 'shout'"),
    "nested beyond reason": ("{{" + "(1+" * 1600 + "1" + ")" * 1600 + "}}", "nested too deeply"),
    "more loops in one another than Python takes": (
        "{% for m in messages %}" * 30 + "{% endfor %}" * 30,
        "nested too deeply",
    ),
    "no end-of-text": (EACH + "\n{% endfor %}", "prints no eos_token (<|endoftext|>) after an assistant message"),
    "end-of-text of another model": (EACH + "</s>{% endfor %}", "prints no eos_token (<|endoftext|>)"),
    "end-of-text only at the very end": (
        EACH + "?{% endfor %}{% if messages[-1].role == 'assistant' %}{{ eos_token }}{% endif %}",
        "prints earlier messages otherwise once later ones follow",
    ),
    "a heading that is only announced": (
        EACH
        + "{{ eos_token if m.role == 'assistant' else '?' }}{% endfor %}{% if add_generation_prompt %}A:{% endif %}",
        "prints something else before an answer than add_generation_prompt announces",
    ),
    "a heading that is not announced": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token if m.role == 'assistant' else '?' }}"
        "{% endfor %}",
        "the model would have to say 'assistant: ' before each answer",
    ),
    "a token of other models": ("{{ bos_token }}" + EACH + "{{ eos_token }}{% endfor %}", "it uses bos_token"),
    "today's date": (
        "{{ strftime_now('%d') }}" + EACH + "{{ eos_token }}{% endfor %}",
        "it prints today's date",
    ),
    "questions that are not printed": (
        "{% for m in messages if m.role == 'assistant' %}{{ m.content + eos_token }}{% endfor %}",
        "it prints nothing for a message of the user",
    ),
    "questions that are replaced": (
        "{% for m in messages %}{{ m.content + eos_token if m.role == 'assistant' else 'Q' }}{% endfor %}",
        "it does not print the content of a message of user",
    ),
    "a conversation that it does not take": ("{{ raise_exception('never') }}", "refuses it: never"),
    "a fault of its own": (EACH + "{{ m.role + 1 }}{% endfor %}", 'refuses it: can only concatenate str (not "int")'),
    "a way out of the sandbox": ("{{ messages.__class__.__mro__ }}" + EACH + "{% endfor %}", "is unsafe"),
}


@pytest.mark.parametrize(("template", "said"), REFUSED.values(), ids=REFUSED)
def test_a_template_that_cannot_be_trained_with_is_refused(template: str, said: str) -> None:
    with pytest.raises(StageError) as caught:
        conversion(template=template)
    assert (caught.value.code, caught.value.reason) == (ExitCode.CONFIGURATION, "TemplateNotUsable")
    assert caught.value.message.startswith("dataset.template cannot be trained with: ")
    assert said in caught.value.message


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([CHAT_TEMPLATE, CHATML, DIALOGUE]), chats(), st.booleans())
def test_text_is_rendered_as_transformers_renders_it(template: str, turns: list[dict[str, str]], ask: bool) -> None:
    ours = ChatTemplate(template, END).render(turns, ask=ask)
    (theirs,), _ = render_jinja_template([turns], chat_template=template, add_generation_prompt=ask, eos_token=END)
    assert ours == theirs


@settings(deadline=None, max_examples=50)
@given(chats(), st.lists(st.sampled_from([0, 1]), min_size=4, max_size=4))
def test_the_recipes_template_prints_in_python_what_it_prints_in_jinja(
    turns: list[dict[str, Any]], weights: list[int]
) -> None:
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    for answer, weight in zip(answers[:-1], weights, strict=False):
        answer["weight"] = weight
    python: Conversion = conversion()
    jinja = conversion(template=CHAT_TEMPLATE)
    assert python.document({"messages": turns}) == jinja.document({"messages": turns})
    assert python.sample({"messages": turns}) == jinja.sample({"messages": turns})
