"""A record as it was read, and the place it has in its file."""

from dataclasses import dataclass
from typing import Any, Literal

LONGEST = 1 << 26
"""Bytes of a record: 64 MiB of text, many times what the longest row of tokens holds. It bounds the memory of reading
a file that is not what it seems."""


@dataclass(frozen=True)
class Where:
    """Place of a record, in the words of an editor: a line of text (from 1), the index in a JSON array or the row of a
    table (both from 0).
    """

    file: str
    number: int
    kind: Literal["line", "index", "row"] = "line"

    def __str__(self) -> str:
        return f"{self.file} {self.kind} {self.number}"


@dataclass(frozen=True)
class Record:
    """One record as it was read; `problem` says why it could not be."""

    where: Where
    fields: dict[str, Any]
    problem: str | None = None


class BrokenFileError(ValueError):
    """A file that cannot be read to its end; the text says why, beginning with a verb."""


def too_long(where: Where) -> Record:
    return Record(where, {}, f"is longer than {LONGEST >> 20} MiB")


def path_of_broken_text(fields: Any) -> str | None:
    """Where the fields hold half of a surrogate pair, as in `messages[1].content`; None where all is text."""
    left: list[tuple[str, Any]] = [("", fields)]
    while left:  # not by recursion: a field that nobody reads may be nested as deeply as it likes
        path, value = left.pop()
        if not _encodable(value):
            return path
        if isinstance(value, dict):
            below = [(f"{path}.{name}" if path else str(name), part) for name, part in value.items()]
            if broken := next((name for name, _ in below if not _encodable(name)), None):
                return broken
            left += reversed(below)
        elif isinstance(value, list):
            left += reversed([(f"{path}[{index}]", part) for index, part in enumerate(value)])
    return None


def _encodable(value: Any) -> bool:
    try:
        return not isinstance(value, str) or value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False
