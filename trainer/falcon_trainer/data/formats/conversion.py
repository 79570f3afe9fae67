"""From the fields of a record to its document: the format, named or recognised, and the text it makes."""

from dataclasses import replace
from typing import Any, Protocol, TypedDict

from falcon_trainer.config import Dataset
from falcon_trainer.data.formats.completion import CONVERSATIONAL, PROMPT_COMPLETION, TEXT
from falcon_trainer.data.formats.conversation import Conversation, Message, Turn
from falcon_trainer.data.formats.instruction import ALPACA, DOLLY
from falcon_trainer.data.formats.messages import CHAT, SHARE_GPT
from falcon_trainer.data.formats.recipe import RecipeTemplate
from falcon_trainer.data.formats.record import Document, InvalidRecord, Segment
from falcon_trainer.data.formats.template import ChatTemplate, UnusableTemplate
from falcon_trainer.outcome import ExitCode, StageError

END_OF_TEXT = "<|endoftext|>"
"""Falcon's, for as long as the model's tokenizer is not known."""
LONGEST_OPENING = 200
"""Characters of a plain text that stand for its prompt in a sample."""


class Format(Protocol):
    """A shape of records."""

    @property
    def name(self) -> str:
        """As dataset.format has it."""

    @property
    def fields(self) -> str:
        """Its fields, for a sentence."""

    @property
    def is_chat(self) -> bool:
        """Whether a chat template makes its text; else the texts of its turns are trained as they are."""

    def resembles(self, fields: dict[str, Any]) -> str | None:
        """Why a record is taken for one of this format, None where it is not."""

    def conversation(self, fields: dict[str, Any]) -> Conversation:
        """The record's turns. Raises InvalidRecord."""


FORMATS: tuple[Format, ...] = (CHAT, SHARE_GPT, DOLLY, ALPACA, CONVERSATIONAL, PROMPT_COMPLETION, TEXT)
"""In the order in which a record is held against them: Alpaca's often have a 'text' too, chats often a 'prompt'."""


class Sample(TypedDict):
    """One record as a question and its answer, for checks and for the report."""

    prompt: str
    """Text before the last answer; of a plain text, its beginning. Never empty."""
    answer: str
    """The last answer, without end-of-text."""
    message: str | None
    """The user message that asks a served model for it, where one message does."""
    messages: list[Message] | None
    """The messages that ask a served model for it; None where it has no chat template."""


class Conversion:
    """Makes documents of records. The first record that resembles a format settles it for all."""

    def __init__(self, candidates: tuple[Format, ...], template: ChatTemplate) -> None:
        self._candidates, self._template, self._end = candidates, template, template.end_of_text
        self._settled: Format | None = candidates[0] if len(candidates) == 1 else None
        self.explanation = ""
        """Which format was recognised and why; printed when it is."""

    @classmethod
    def of(cls, dataset: Dataset, eos_token: str | None) -> "Conversion":
        """The conversion that a data set asks for. `eos_token` is the tokenizer's, None while it is not known.

        Raises StageError(CONFIGURATION) where dataset.template cannot be trained with.
        """
        named = [known for known in FORMATS if dataset.format in ("auto", known.name)]
        # An own template says that the records are conversations.
        candidates = [known for known in named if known.is_chat or not dataset.template]
        if not candidates:
            raise _unusable(f"records of the format {dataset.format} are no conversations. Leave the template out")
        return cls(tuple(candidates), _template(dataset.template, eos_token or END_OF_TEXT))

    @property
    def format(self) -> str | None:
        """Name of the format; None until it is recognised."""
        names = {known.name for known in self._candidates}
        return self._settled.name if self._settled else names.pop() if len(names) == 1 else None

    @property
    def chat_template(self) -> str | None:
        """What becomes the tokenizer's chat template; None for text and prompt-completion.

        Only known once a record was converted: prompts and completions may be texts or lists of messages.
        """
        return self._template.source if self._settled and self._settled.is_chat else None

    def document(self, fields: dict[str, Any]) -> Document:
        """The record's segments. Raises InvalidRecord, and nothing else, whatever the fields hold."""
        known = self._known(fields)
        return self._printed(known, self._conversation(known, fields))

    def sample(self, fields: dict[str, Any]) -> Sample:
        """The record as a question and its last answer. Raises InvalidRecord."""
        known = self._known(fields)
        conversation = self._conversation(known, fields)
        *before, last = self._printed(known, conversation)
        prompt, answer = "".join(segment.text for segment in before), last.text.removesuffix(self._end)
        if not prompt:
            prompt, answer = _opened(answer)
        messages = [turn.message for turn in conversation[:-1]] if known.is_chat else None
        alone = messages[0] if messages and len(messages) == 1 else None
        message = alone["content"] if alone and alone["role"] == "user" else None
        return {"prompt": prompt, "answer": answer, "message": message, "messages": messages}

    def _known(self, fields: dict[str, Any]) -> Format:
        """Raises InvalidRecord where no format fits."""
        if self._settled:
            return self._settled
        for known in self._candidates:
            if why := known.resembles(fields):
                self._settled = known
                self.explanation = f"dataset.format: {known.name}, recognised by the first record: {why}"
                print(self.explanation, flush=True)
                return known
        if self.format:  # it is named, and the record lacks what tells its two shapes apart
            return self._candidates[-1]
        names = ", ".join(sorted(map(repr, fields))[:8]) or "none"
        has = {known.name: known.fields for known in self._candidates}
        reason = "are of no known format: " + "; ".join(f"{name} has {fields}" for name, fields in has.items())
        raise InvalidRecord(names, "unknown format", reason, subject=f"its fields ({names})")

    def _conversation(self, known: Format, fields: dict[str, Any]) -> Conversation:
        try:
            turns = known.conversation(fields)
        except InvalidRecord as error:
            if error.kind == "missing field" and (better := _better(known, fields)):
                raise InvalidRecord(error.field, error.kind, f"{error.reason} ({better})") from None
            raise
        return tuple(self._without_end(turn) if turn.trained else turn for turn in turns)

    def _without_end(self, turn: Turn) -> Turn:
        """Records prepared for other trainers often end in end-of-text already; it is not doubled."""
        content = turn.content.removesuffix(self._end)
        if not content.strip():
            raise InvalidRecord("answer", "no answer", "holds only end-of-text", subject="an answer")
        return replace(turn, content=content)

    def _printed(self, known: Format, conversation: Conversation) -> Document:
        if known.is_chat:
            return self._template.document(conversation)
        return tuple(Segment(turn.content, answer=turn.trained) for turn in conversation)


def _better(known: Format, fields: dict[str, Any]) -> str | None:
    """What to say of a record that looks like one of another format."""
    if known.resembles(fields):
        return None
    other = next((other for other in FORMATS if other.resembles(fields)), None)
    return f"it looks like a record of the format {other.name}" if other else None


def _opened(text: str) -> tuple[str, str]:
    """A plain text in two: its beginning, which a served model may be asked to go on from, and the rest."""
    half = min(len(text) // 2, LONGEST_OPENING)
    border = text.rfind(" ", 1, half + 1)
    border = border if border > 0 else max(half, 1)
    return text[:border], text[border:]


def _template(own: str | None, end_of_text: str) -> ChatTemplate:
    """The recipe's template, or the user's own once it is checked."""
    if not own:
        return RecipeTemplate(end_of_text)
    try:
        template = ChatTemplate(own, end_of_text)
        template.check()
    except UnusableTemplate as error:
        raise _unusable(str(error)) from error
    return template


def _unusable(why: str) -> StageError:
    return StageError(ExitCode.CONFIGURATION, "TemplateNotUsable", f"dataset.template cannot be trained with: {why}.")
