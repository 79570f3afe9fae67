"""CSV with a header, as RFC 4180 has it: fields in quotes may hold line ends."""

import csv
import io
from collections.abc import Iterator

from falcon_trainer.data.sources.record import LONGEST, BrokenFileError, Record, Where


def read_csv(stream: io.BufferedReader, name: str, *, delimiter: str = ",") -> Iterator[Record]:
    """The records of a CSV file, every field a text; `FILE line N` is the line on which a record begins.

    Raises BrokenFileError where the header cannot be used.
    """
    csv.field_size_limit(LONGEST)
    # Bytes that are no UTF-8 come through as halves of characters, so that the record is told and not only the file.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    while True:
        where = Where(name, rows.line_num + 1)
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if columns is None:
                raise BrokenFileError(f"has no header that can be read ({error})") from error
            yield Record(where, {}, f"is not CSV: {error}")
            continue
        if not cells:
            continue
        if columns is None:
            columns = _columns(cells)
        else:
            yield _record(where, columns, cells)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := text.readline(LONGEST):
        number += 1
        if len(line) >= LONGEST:
            raise BrokenFileError(f"is not CSV: line {number} is longer than {LONGEST >> 20} MiB")
        yield line


def _columns(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BrokenFileError(f"has a header that names {twice[0]!r} twice")
    if not all(map(_is_text, names)):
        raise BrokenFileError("has a header that is not UTF-8 text")
    return names


def _record(where: Where, columns: list[str], cells: list[str]) -> Record:
    if len(cells) != len(columns):
        return Record(where, {}, f"has {len(cells)} columns where the header has {len(columns)}")
    for column, cell in zip(columns, cells, strict=True):
        if not _is_text(cell):
            return Record(where, {}, f"field {column!r} is not UTF-8 text")
    return Record(where, dict(zip(columns, cells, strict=True)))


def _is_text(cell: str) -> bool:
    try:
        return cell.isascii() or bool(cell.encode())
    except UnicodeEncodeError:
        return False
