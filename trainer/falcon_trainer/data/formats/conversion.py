"""From the fields of a record to its document: the format, named or recognised, and the text it makes."""

from dataclasses import replace
from typing import Any, Protocol, TypedDict

from falcon_trainer.config import Dataset
from falcon_trainer.data.formats.conversation import Conversation, Message
from falcon_trainer.data.formats.instruction import ALPACA, DOLLY
from falcon_trainer.data.formats.record import Document, InvalidRecord
from falcon_trainer.data.formats.template import ChatTemplate, UnusableTemplate
from falcon_trainer.data.prompt import CHAT_TEMPLATE
from falcon_trainer.outcome import ExitCode, StageError

END_OF_TEXT = "<|endoftext|>"
"""Falcon's, for as long as the model's tokenizer is not known."""


class Format(Protocol):
    """A shape of records."""

    @property
    def name(self) -> str:
        """As dataset.format has it."""

    @property
    def fields(self) -> str:
        """Its fields, for a sentence."""

    def resembles(self, fields: dict[str, Any]) -> str | None:
        """Why a record is taken for one of this format, None where it is not."""


class ChatFormat(Format, Protocol):
    """A format of conversations, whose text a chat template makes."""

    def conversation(self, fields: dict[str, Any]) -> Conversation:
        """Raises InvalidRecord."""


CHAT_FORMATS: tuple[ChatFormat, ...] = (DOLLY, ALPACA)
"""In the order in which a record is held against them."""


class Sample(TypedDict):
    """One record as a question and its answer, for checks and for the report."""

    prompt: str
    """Text before the last answer."""
    answer: str
    """The last answer, without end-of-text."""
    message: str | None
    """The user message that asks a served model for it, where one message does."""
    messages: list[Message] | None
    """The messages that ask a served model for it; None where it has no chat template."""


class Conversion:
    """Makes documents of records. With `auto`, the first record that resembles a format settles it for all."""

    def __init__(
        self, formats: tuple[ChatFormat, ...], template: ChatTemplate, end_of_text: str, *, auto: bool
    ) -> None:
        self._candidates, self._template, self._end = formats, template, end_of_text
        self._format: ChatFormat | None = None if auto else formats[0]
        self.explanation = "" if auto else f"dataset.format: {formats[0].name}, as named"
        """What the format is, and why; for the log."""

    @classmethod
    def of(cls, dataset: Dataset, eos_token: str | None) -> "Conversion":
        """The conversion that a data set asks for. `eos_token` is the tokenizer's, None while it is not known.

        Raises StageError(CONFIGURATION) where dataset.template cannot be trained with.
        """
        named = tuple(known for known in CHAT_FORMATS if known.name == dataset.format)
        end_of_text = eos_token or END_OF_TEXT
        template = _template(dataset.template, end_of_text)
        return cls(named or CHAT_FORMATS, template, end_of_text, auto=dataset.format == "auto")

    @property
    def format(self) -> str | None:
        """Name of the format; None until it is recognised."""
        return self._format.name if self._format else None

    @property
    def chat_template(self) -> str | None:
        """What becomes the tokenizer's chat template; None for formats that are not conversations."""
        return self._template.source

    def document(self, fields: dict[str, Any]) -> Document:
        """The record's segments. Raises InvalidRecord, and nothing else, whatever the fields hold."""
        return self._template.document(self._conversation(fields))

    def sample(self, fields: dict[str, Any]) -> Sample:
        """The record as a question and its last answer. Raises InvalidRecord."""
        conversation = self._conversation(fields)
        *before, last = self._template.document(conversation)
        messages = [turn.message for turn in conversation[:-1]]
        return {
            "prompt": "".join(segment.text for segment in before),
            "answer": last.text.removesuffix(self._end),
            "message": messages[0]["content"] if len(messages) == 1 and messages[0]["role"] == "user" else None,
            "messages": messages,
        }

    def _conversation(self, fields: dict[str, Any]) -> Conversation:
        known = self._format or self._recognise(fields)
        return tuple(
            # Records prepared for other trainers often end in it already.
            replace(turn, content=turn.content.removesuffix(self._end)) if turn.trained else turn
            for turn in known.conversation(fields)
        )

    def _recognise(self, fields: dict[str, Any]) -> ChatFormat:
        """Raises InvalidRecord where no format fits."""
        for known in self._candidates:
            if why := known.resembles(fields):
                self._format = known
                self.explanation = f"dataset.format: {known.name}, recognised by the first record: {why}"
                print(self.explanation, flush=True)
                return known
        names = ", ".join(sorted(map(repr, fields))[:8]) or "none"
        candidates = "; ".join(f"{known.name} has {known.fields}" for known in self._candidates)
        reason = f"are of no known format: {candidates}"
        raise InvalidRecord(names, "unknown format", reason, subject=f"its fields ({names})")


def _template(own: str | None, end_of_text: str) -> ChatTemplate:
    """The recipe's template, or the user's own once it is checked."""
    try:
        template = ChatTemplate(own or CHAT_TEMPLATE, end_of_text)
        if own:
            template.check()
    except UnusableTemplate as error:
        sentence = f"dataset.template cannot be trained with: {error}."
        raise StageError(ExitCode.CONFIGURATION, "TemplateNotUsable", sentence) from error
    return template
