"""Where records come from: `pvc://` files and folders of JSON Lines or JSON arrays, read one record at a time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falcon_trainer import layout
from falcon_trainer.artifacts import sha256_of
from falcon_trainer.config import Dataset
from falcon_trainer.outcome import ExitCode, StageError

SUFFIXES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Where:
    """Place of a record, in the words of an editor: a line of JSON Lines, or the index in a JSON array."""

    file: str
    number: int
    array: bool = False

    def __str__(self) -> str:
        return f"{self.file} index {self.number}" if self.array else f"{self.file} line {self.number}"


@dataclass(frozen=True)
class Record:
    """One record as it was read; `problem` says why it could not be."""

    where: Where
    fields: dict[str, Any]
    problem: str | None = None


def files_of(dataset: Dataset) -> list[Path]:
    """The files of all sources, in the order of the spec and by name within a folder.

    Raises StageError(NO_INPUT) where one is missing or a folder holds no records file.
    """
    return [file for source in dataset.sources for file in _files_at(layout.source_path(source.uri), source.uri)]


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """SHA-256 of every file, by its path under the sources: what was prepared, told apart from what lies there now.

    Raises StageError(NO_INPUT) where a file is missing or cannot be read.
    """
    found = {}
    for file in files_of(dataset):
        try:
            found[str(file.relative_to(layout.SOURCES))] = sha256_of(file)
        except OSError as error:
            raise _unreadable(file, error) from error
    return found


def read(file: Path) -> Iterator[Record]:
    """The records of one file. A JSON array numbers its records from 0; JSON Lines are numbered from 1."""
    try:
        with file.open("rb") as opened:
            head = opened.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        yield from _array(file) if head.startswith(b"[") else _lines(file)
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> StageError:
    return StageError(ExitCode.NO_INPUT, "CannotReadData", f"{file} cannot be read: {error.strerror or error}.")


def _files_at(path: Path, uri: str) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
        if files:
            return files
        raise StageError(ExitCode.NO_INPUT, "DataNotFound", f"{uri}: the folder holds no {', '.join(SUFFIXES)} file.")
    raise StageError(ExitCode.NO_INPUT, "DataNotFound", f"{uri}: {_what_is_missing(path)}.")


def _what_is_missing(path: Path) -> str:
    """The first part of the path that is not there, and what lies beside it."""
    parent = path
    while not parent.exists() and parent != layout.SOURCES and parent != parent.parent:
        path, parent = parent, parent.parent
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))[:10]
    beside = f"there are {', '.join(names)}" if names else "the folder is empty"
    return f"there is no {path.name!r} in {parent} ({beside})"


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
        yield _record(Where(file.name, number, array=True), value)


def _record(where: Where, value: object) -> Record:
    if isinstance(value, dict):
        return Record(where, value)
    return Record(where, {}, f"is a JSON {_kind(value)}, not an object")


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
