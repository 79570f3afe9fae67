"""Prompts: words of a command line, lines of a text, or records of a file in the formats that are trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falcon_trainer.data.formats.conversation import Message, Turn
from falcon_trainer.data.formats.messages import turns_of
from falcon_trainer.data.formats.record import InvalidRecord, any_text_at, text_at
from falcon_trainer.data.prompt import user_message
from falcon_trainer.data.sources import kinds
from falcon_trainer.data.sources.reading import read, unreadable
from falcon_trainer.outcome import ExitCode, StageError

TEXT_FIELDS = ("prompt", "text")
CONTEXTS = ("context", "input")
"""Dolly's and Alpaca's name of what stands beside an instruction."""
KNOWN = "'prompt', 'text', 'instruction' (with 'context' or 'input'), 'messages' or 'conversations'"


@dataclass(frozen=True)
class Prompt:
    """Either `messages` or a text: the user's message where the run has a chat template, else the prompt as it is."""

    where: str
    """For errors: FILE line N, or the prompt's number."""
    text: str = ""
    messages: Sequence[Message] | None = None

    @property
    def shown(self) -> str:
        """What is asked, as a person reads it."""
        return self.messages[-1]["content"] if self.messages else self.text


def of_texts(texts: Sequence[str]) -> list[Prompt]:
    """One prompt for each text. Raises StageError(DATA) for an empty one."""
    return [Prompt(f"prompt {number}", _said(text, f"prompt {number}")) for number, text in enumerate(texts, start=1)]


def read_prompts(file: Path) -> list[Prompt]:
    """The prompts of a file: records where its name tells a kind of records (.jsonl, .csv, …), else one a line.

    Raises StageError, which names file and line, where one cannot be read or asks nothing. All are read before the
    first is asked, because loading a large model takes minutes.
    """
    prompts = list(_records(file) if kinds.named(file.name) else _lines(file))
    if not prompts:
        raise StageError(ExitCode.DATA, "InvalidPrompt", f"{file} holds no prompt.")
    return prompts


def _lines(file: Path) -> Iterator[Prompt]:
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise unreadable(file, error) from error
    for number, line in enumerate(lines, start=1):
        where = f"{file.name} line {number}"
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise _invalid(where, f"is not UTF-8 text (byte {error.start})") from error
        if text.strip():
            yield Prompt(where, text)


def _records(file: Path) -> Iterator[Prompt]:
    for record in read(file):
        where = str(record.where)
        if record.problem:
            raise _invalid(where, record.problem)
        try:
            yield _prompt(where, record.fields)
        except InvalidRecord as error:
            raise _invalid(where, str(error)) from error


def _prompt(where: str, fields: dict[str, Any]) -> Prompt:
    """Raises InvalidRecord."""
    for name in ("messages", "conversations", "prompt"):
        if isinstance(fields.get(name), list):
            return Prompt(where, messages=_messages(fields, name))
    for name in TEXT_FIELDS:
        if name in fields:
            return Prompt(where, text_at(fields[name], name))
    if "instruction" not in fields:
        names = ", ".join(sorted(map(repr, fields))[:8]) or "none"
        raise InvalidRecord(
            names, "unknown format", f"tell no prompt: known are {KNOWN}", subject=f"its fields ({names})"
        )
    instruction = text_at(fields["instruction"], "instruction")
    context = next((any_text_at(fields[name], name) for name in CONTEXTS if fields.get(name)), "")
    return Prompt(where, messages=[{"role": "user", "content": user_message(instruction, context)}])


def _messages(fields: dict[str, Any], field: str) -> list[Message]:
    """The messages up to the last one that is no answer: a record of a data set has its answer at the end."""
    turns = [turn for _, turn in turns_of(fields[field], field, sharegpt=field == "conversations")]
    while turns and turns[-1].role == "assistant":
        turns.pop()
    if not turns:
        raise InvalidRecord(field, "no prompt", "holds nothing that asks for an answer")
    beside = fields.get("system") if field == "conversations" else None
    opening = [Turn("system", any_text_at(beside, "system"))] if beside else []
    return [turn.message for turn in [*opening, *turns]]


def _said(text: str, where: str) -> str:
    if not text.strip():
        raise _invalid(where, "is empty")
    return text


def _invalid(where: str, what: str) -> StageError:
    return StageError(ExitCode.DATA, "InvalidPrompt", f"{where}: {what.rstrip('.')}.")
