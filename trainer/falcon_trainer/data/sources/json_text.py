"""JSON Lines, and JSON arrays read element by element: neither is ever in memory as a whole."""

import io
import json
import re
from collections.abc import Iterator

from falcon_trainer.data.sources.kinds import BLANK
from falcon_trainer.data.sources.record import LONGEST, BrokenFileError, Record, Where, path_of_broken_text, too_long

BLOCK = 1 << 20
"""Characters of a JSON array that are read at a time."""
BOM = b"\xef\xbb\xbf"
DELIMITERS = tuple(",] \t\r\n")
"""What may follow a value of an array."""
WHITE_SPACE = re.compile(r"[ \t\r\n]*")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""Escape of half a character; only as a pair it is text."""


def read_json(stream: io.BufferedReader, name: str) -> Iterator[Record]:
    """The records of a JSON array (`FILE index N`, from 0) or of JSON Lines (`FILE line N`, from 1).

    Raises BrokenFileError where an array breaks off or is none: where it ends is unknown then, so its good records
    cannot be told from bad ones.
    """
    return _array(stream, name) if stream.peek().lstrip(BLANK).startswith(b"[") else _lines(stream, name)


def _lines(stream: io.BufferedReader, name: str) -> Iterator[Record]:
    number = 0
    while line := stream.readline(LONGEST + 1):
        number += 1
        where = Where(name, number)
        if len(line) > LONGEST and not line.endswith(b"\n"):
            while (rest := stream.readline(BLOCK)) and not rest.endswith(b"\n"):
                pass
            yield too_long(where)
            continue
        line = line.removeprefix(BOM) if number == 1 else line
        if line.strip():
            yield _parsed(where, line)


def _parsed(where: Where, line: bytes) -> Record:
    try:
        # Not left to json.loads, which would guess an encoding and let halves of characters through.
        text = line.decode()
        return _record(where, json.loads(text), text)
    except UnicodeDecodeError as error:
        return Record(where, {}, f"is not UTF-8 text (byte {error.start})")
    except RecursionError:
        return Record(where, {}, "is nested too deeply")
    except ValueError as error:
        return Record(where, {}, f"is not JSON: {error}")


def _record(where: Where, value: object, text: str) -> Record:
    if not isinstance(value, dict):
        return Record(where, {}, f"is a JSON {_kind(value)}, not an object")
    if SURROGATE.search(text) and (path := path_of_broken_text(value)) is not None:
        halves = r"an escape \ud800 to \udfff without its other half"
        return Record(where, {}, f"field {path!r} holds half a character ({halves})")
    return Record(where, value)


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _array(stream: io.BufferedReader, name: str) -> Iterator[Record]:
    window = _Window(io.TextIOWrapper(stream, encoding="utf-8-sig"))
    number = 0
    try:
        window.expect("[")
        ended = window.accept("]")
        while not ended:
            value, text = window.value()
            yield _record(Where(name, number, "index"), value, text)
            number += 1
            ended = window.accept("]")
            if not ended:
                window.expect(",")
        window.end()
    except (ValueError, RecursionError) as error:
        after = f"after index {number - 1}" if number else "at its beginning"
        raise BrokenFileError(f"is not a JSON array: {_reason(error)} {after}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "bytes that are no UTF-8 text"
    if isinstance(error, RecursionError):
        return "a value that is nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


class _Window:
    """The part of a long JSON text that is being parsed. Raises ValueError where the text is no JSON."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._buffer, self._at, self._ended = text, "", 0, False
        self._decoder = json.JSONDecoder()

    def value(self) -> tuple[object, str]:
        """The next value, and its text."""
        self._skip_white_space()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
                # A number may go on beyond the window: `0` may be the beginning of `0.5`.
                if self._buffer[end : end + 1] in DELIMITERS or self._ended:
                    text, self._at = self._buffer[self._at : end], end
                    return value, text
            except json.JSONDecodeError:
                if self._ended or len(self._buffer) - self._at > LONGEST:
                    raise
            # Twice as much each time, so that a long value costs no more than twice its parsing.
            self._read(max(BLOCK, len(self._buffer) - self._at))

    def accept(self, character: str) -> bool:
        """Whether this character comes next; if so it is passed."""
        self._skip_white_space()
        found = self._buffer.startswith(character, self._at)
        self._at += found
        return found

    def expect(self, character: str) -> None:
        """Passes this character."""
        if not self.accept(character):
            raise ValueError(f"Expecting {character!r}")

    def end(self) -> None:
        """Nothing but white space is left."""
        self._skip_white_space()
        if self._at < len(self._buffer):
            raise ValueError("Extra data")

    def _skip_white_space(self) -> None:
        while True:
            match = WHITE_SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer) or self._ended:
                return
            self._read(BLOCK)

    def _read(self, characters: int) -> None:
        more = self._text.read(characters)
        self._buffer, self._at, self._ended = self._buffer[self._at :] + more, 0, not more
