"""The chat template: makes the text of a conversation, in training as it will when the model is served.

Rendered as transformers' `apply_chat_template` renders it (same sandbox, same settings; a test holds them together),
without the half second that importing transformers takes and at half its price for a message.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from falcon_trainer.data.formats.conversation import Conversation, Message, Turn
from falcon_trainer.data.formats.record import Document, InvalidRecord, Segment

FOREIGN = frozenset(
    ("bos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token", "additional_special_tokens")
)
"""Names that a server may fill from its tokenizer, and Falcon's tokenizer has no token for."""
PROBE: Conversation = (
    Turn("user", "First question?"),
    Turn("assistant", "First answer.", trained=True),
    Turn("user", "Second question?"),
    Turn("assistant", "Second answer.", trained=True),
)
"""A conversation that every template must be able to print."""


class UnusableTemplate(ValueError):  # noqa: N818 - it is said of a template
    """A template that cannot be trained with; the message says why, without naming the template."""


class _Generation(Extension):
    """`{% generation %}`, which marks answers for other trainers, prints what it encloses."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own form

    def parse(self, parser: Parser) -> nodes.Node:
        """The statements inside, whose assignments stay there, as in transformers."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


def _environment() -> ImmutableSandboxedEnvironment:
    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals["raise_exception"] = refuse
    return environment


@lru_cache(maxsize=16)
def _compiled(source: str) -> tuple[frozenset[str], Template]:
    """The names that a template uses, and the template. Raises TemplateSyntaxError."""
    environment = _environment()
    names = frozenset(str(value) for _, kind, value in environment.lex(source) if kind == "name")
    return names, environment.from_string(source)


def _json(value: object, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Unlike jinja's own filter, without escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


class ChatTemplate:
    """A template whose prompts are prefixes of its conversations, and whose answers end in end-of-text."""

    def __init__(self, source: str, end_of_text: str) -> None:
        """Raises UnusableTemplate where the source does not parse."""
        self.source = source
        self.end_of_text = end_of_text
        try:
            self._names, self._template = _compiled(source)
        except TemplateSyntaxError as error:
            raise UnusableTemplate(f"line {error.lineno} is not Jinja: {error.message}") from error
        except (RecursionError, SyntaxError) as error:  # of the Python that Jinja makes of it
            raise UnusableTemplate("it is nested too deeply") from error

    def render(self, messages: Sequence[Message], *, ask: bool) -> str:
        """The text of the messages; with `ask`, up to where the next answer begins. Raises whatever the source does."""
        return self._template.render(
            messages=list(messages), add_generation_prompt=ask, eos_token=self.end_of_text, tools=None, documents=None
        )

    def document(self, conversation: Conversation) -> Document:
        """The text of a conversation: each trained answer with its end-of-text, and everything between as prompts.

        Raises InvalidRecord where the template refuses the messages, or prints them otherwise once an answer follows.
        """
        messages = [turn.message for turn in conversation]
        segments: list[Segment] = []
        done = ""
        for index, turn in enumerate(conversation):
            if turn.trained:
                prompt, whole = (
                    self._printed(messages[:index], ask=True),
                    self._printed(messages[: index + 1], ask=False),
                )
                answer = self._answer(prompt, whole, index)
                if not prompt.startswith(done):
                    raise _refused(index, "prints earlier messages otherwise once later ones follow")
                if len(prompt) > len(done):
                    segments.append(Segment(prompt[len(done) :], answer=False))
                segments.append(Segment(answer, answer=True))
                done = prompt + answer
        return tuple(segments)

    def _answer(self, prompt: str, whole: str, index: int) -> str:
        if not whole.startswith(prompt):
            raise _refused(index, "prints something else before an answer than add_generation_prompt announces")
        answer = whole[len(prompt) :]
        # What a template prints after the end-of-text (a line break, say) opens the next turn.
        end = answer.rfind(self.end_of_text)
        if end < 0:
            raise _refused(index, f"prints no eos_token ({self.end_of_text}) after an assistant message")
        return answer[: end + len(self.end_of_text)]

    def _printed(self, messages: list[Message], *, ask: bool) -> str:
        try:
            return self.render(messages, ask=ask)
        except Exception as error:  # noqa: BLE001,RUF100 - the source is the user's, and may raise anything
            raise _refused(max(len(messages) - 1, 0), f"refuses it: {error}") from error

    def check(self) -> None:
        """Raises UnusableTemplate, with the sentence that its author needs."""
        if foreign := sorted(self._names & FOREIGN):
            raise UnusableTemplate(
                f"it uses {foreign[0]}, which Falcon's tokenizer lacks; it is given messages, add_generation_prompt "
                "and eos_token"
            )
        if "strftime_now" in self._names:
            raise UnusableTemplate("it prints today's date (strftime_now): served prompts would never be trained ones")
        try:
            document = self.document(PROBE)
        except InvalidRecord as error:
            raise UnusableTemplate(f"of a plain conversation it {error.reason}") from error
        if len(document) != len(PROBE):
            raise UnusableTemplate("it prints nothing for a message of the user")
        for turn, segment in zip(PROBE, document, strict=True):
            self._check_said(turn, segment.text)

    def _check_said(self, turn: Turn, text: str) -> None:
        if turn.content not in text:
            raise UnusableTemplate(f"it does not print the content of a message of {turn.role}")
        if turn.trained and not text.lstrip().startswith(turn.content):
            raise UnusableTemplate(
                f"the model would have to say {text[: text.find(turn.content)]!r} before each answer: print it where "
                "add_generation_prompt is set"
            )


def _refused(index: int, what: str) -> InvalidRecord:
    return InvalidRecord(f"messages[{index}]", "template", what, subject=f"messages[{index}]: the chat template")
