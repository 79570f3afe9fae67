"""What a format gives, what it refuses, and how it reads a field."""

import reprlib
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "missing field",
    "wrong type",
    "empty",
    "no answer",
    "no prompt",
    "unknown role",
    "role order",
    "not supported",
    "not Unicode",
    "template",
    "unknown format",
    "not JSON",
]
"""Why a record cannot be used, in the words under which such records are counted. "no answer" is an empty one too."""


@dataclass(frozen=True)
class Segment:
    """A piece of text that is read as prompt, or trained as answer.

    End-of-text is part of an answer's text where a chat template prints it; the Encoder appends it where it is missing.
    """

    text: str
    answer: bool


Document = tuple[Segment, ...]
"""The segments of one record, in order. Their texts, joined, are what the chat template makes of its messages."""


class InvalidRecord(ValueError):  # noqa: N818 - it is said of a record, "an invalid record"
    """A record that cannot be used; the message begins with the field."""

    def __init__(self, field: str, kind: Kind, reason: str, *, subject: str | None = None) -> None:
        subject = f"field {field!r}" if subject is None else subject
        super().__init__(f"{subject} {reason}".strip())
        self.field, self.kind, self.reason = field, kind, reason


def text_at(value: object, field: str, *, empty: Kind = "empty") -> str:
    """The value if it is a text that says something. Raises InvalidRecord, of kind `empty` where it says nothing."""
    text = any_text_at(value, field)
    if not text.strip():
        raise InvalidRecord(field, empty, "is empty")
    return text


def any_text_at(value: object, field: str) -> str:
    """The value if it is a text, empty or not. Raises InvalidRecord."""
    if not isinstance(value, str):
        raise InvalidRecord(field, "wrong type", f"is not a text but {short(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair (\ud800), which no tokenizer and no file can hold.
        broken = f"holds half a character (\\u{ord(value[error.start]):04x} at position {error.start})"
        raise InvalidRecord(field, "not Unicode", broken) from None
    return value


def value_of(fields: dict[str, Any], field: str, path: str | None = None) -> object:
    """The value of a field that must be there. Raises InvalidRecord, which calls it `path`."""
    if field not in fields:
        raise InvalidRecord(path or field, "missing field", "is missing")
    return fields[field]


class _Short(reprlib.Repr):
    """Any value in a few characters, however deep or long it is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 2, 40, 40, 40
        self.maxlist = self.maxdict = 4


def short(value: object) -> str:
    """The value as it may stand in a sentence."""
    if value is None:
        return "null"
    try:
        text = _Short().repr(value)
    except ValueError:  # an integer of more than 4,300 digits has no text in Python
        text = f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:39] + "…"
