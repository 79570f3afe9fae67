"""A record as it was read, and the place it has in its file."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Where:
    """Place of a record, in the words of an editor: a line of text, the index in a JSON array, or a row of a table."""

    file: str
    number: int
    kind: str = "line"

    def __str__(self) -> str:
        return f"{self.file} {self.kind} {self.number}"


@dataclass(frozen=True)
class Record:
    """One record as it was read; `problem` says why it could not be."""

    where: Where
    fields: dict[str, Any]
    problem: str | None = None
