"""How a record becomes a document: Dolly and Alpaca, named or recognised by the fields of the first record."""

from dataclasses import dataclass
from typing import Any

from falcon_trainer.data.prompt import prompt_text, user_message


@dataclass(frozen=True)
class Segment:
    """A piece of text that is tokenized by itself; end-of-text follows each answer."""

    text: str
    answer: bool


Document = tuple[Segment, ...]


class InvalidRecord(ValueError):  # noqa: N818 - it is said of a record, "an invalid record"
    """A record that cannot be used; the message begins with the field."""


@dataclass(frozen=True)
class InstructionFormat:
    """Records of one instruction, perhaps a context, and one answer."""

    name: str
    context: str
    answer: str
    instruction: str = "instruction"

    def document(self, fields: dict[str, Any]) -> Document:
        """Raises InvalidRecord."""
        prompt = prompt_text(self._text(fields, self.instruction), self._context(fields))
        return Segment(prompt, answer=False), Segment(self._text(fields, self.answer), answer=True)

    def message(self, fields: dict[str, Any]) -> str:
        """The user message that asks a served model for this record's answer. Raises InvalidRecord."""
        return user_message(self._text(fields, self.instruction), self._context(fields))

    def resembles(self, fields: dict[str, Any]) -> bool:
        """Whether the record has this format's own fields; a record with only one of them is still recognised."""
        return self.instruction in fields and (self.answer in fields or self.context in fields)

    def _text(self, fields: dict[str, Any], field: str) -> str:
        value = fields.get(field)
        if field not in fields:
            raise InvalidRecord(f"field {field!r} is missing")
        if not isinstance(value, str):
            raise InvalidRecord(f"field {field!r} is not a text but {_short(value)}")
        if not value.strip():
            raise InvalidRecord(f"field {field!r} is empty")
        return value

    def _context(self, fields: dict[str, Any]) -> str:
        value = fields.get(self.context)
        if value is None or value == "":
            return ""
        if not isinstance(value, str):
            raise InvalidRecord(f"field {self.context!r} is not a text but {_short(value)}")
        return value


DOLLY = InstructionFormat("dolly", context="context", answer="response")
ALPACA = InstructionFormat("alpaca", context="input", answer="output")
FORMATS = {known.name: known for known in (DOLLY, ALPACA)}


def recognise(fields: dict[str, Any]) -> InstructionFormat:
    """The format of a first record. Raises InvalidRecord where none fits."""
    for known in FORMATS.values():
        if known.resembles(fields):
            return known
    has = ", ".join(sorted(map(repr, fields))[:8]) or "none"
    known_fields = "; ".join(f"{f.name} has {f.instruction!r} and {f.answer!r}" for f in FORMATS.values())
    raise InvalidRecord(f"its fields ({has}) are of no known format: {known_fields}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
