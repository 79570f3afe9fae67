"""Reads the records of one file, one at a time."""

import json
from collections.abc import Iterator
from pathlib import Path

from falcon_trainer.data.sources.record import Record, Where
from falcon_trainer.outcome import ExitCode, StageError

SUFFIXES = (".jsonl", ".ndjson", ".json")


def read(file: Path) -> Iterator[Record]:
    """The records of one file. A JSON array numbers its records from 0; JSON Lines are numbered from 1."""
    try:
        with file.open("rb") as opened:
            head = opened.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        yield from _array(file) if head.startswith(b"[") else _lines(file)
    except OSError as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: OSError) -> StageError:
    return StageError(ExitCode.NO_INPUT, "CannotReadData", f"{file} cannot be read: {error.strerror or error}.")


def _lines(file: Path) -> Iterator[Record]:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield _parsed(Where(file.name, number), text)


def _parsed(where: Where, text: bytes) -> Record:
    try:
        return _record(where, json.loads(text))
    except UnicodeDecodeError as error:
        return Record(where, {}, f"is not UTF-8 text (byte {error.start})")
    except ValueError as error:
        return Record(where, {}, f"is not JSON: {error}")


def _array(file: Path) -> Iterator[Record]:
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        # The end of the array is unknown, so its good records cannot be told from the bad ones.
        raise StageError(ExitCode.DATA, "InvalidData", f"{file.name} is not a JSON array: {error}.") from error
    for number, value in enumerate(values):
        yield _record(Where(file.name, number, kind="index"), value)


def _record(where: Where, value: object) -> Record:
    if isinstance(value, dict):
        return Record(where, value)
    return Record(where, {}, f"is a JSON {_kind(value)}, not an object")


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
