"""Parquet and Arrow, a few rows at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from falcon_trainer.data.sources.kinds import Compression
from falcon_trainer.data.sources.opening import unpacked
from falcon_trainer.data.sources.record import Record, Where

ROWS = 256
"""Rows that are Python objects at a time."""
ARROW_FILE = b"ARROW1"
"""How an Arrow file begins; a stream has no such mark."""
BUFFER = 1 << 20
"""Bytes of a column that are read at a time: a row group may be larger than the pod's memory."""


def read_parquet(file: Path, compression: Compression | None, name: str) -> Iterator[Record]:
    """The rows of a Parquet file: `FILE row N`, from 0."""
    from pyarrow import parquet

    with (
        unpacked(file, compression) as path,
        parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True) as table,
    ):
        yield from _records(table.iter_batches(batch_size=ROWS), name)


def read_arrow(file: Path, compression: Compression | None, name: str) -> Iterator[Record]:
    """The rows of an Arrow IPC file or stream: `FILE row N`, from 0."""
    import pyarrow as pa

    # Not mapped into memory: a file that is cut while it is read would kill the process.
    with unpacked(file, compression) as path, pa.OSFile(path) as source:
        random_access = source.read(len(ARROW_FILE)) == ARROW_FILE
        source.seek(0)
        if random_access:
            batches = pa.ipc.open_file(source)
            yield from _records((batches.get_batch(at) for at in range(batches.num_record_batches)), name)
        else:
            yield from _records(pa.ipc.open_stream(source), name)


def _records(batches: Iterator[Any], name: str) -> Iterator[Record]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            for record in _of(batch.slice(start, ROWS), name, number):
                yield record
                number += 1


def _of(batch: Any, name: str, first: int) -> Iterator[Record]:
    """The rows of a small batch; where one cannot be had as Python objects, each is tried by itself."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):
        for at in range(batch.num_rows):
            yield _single(batch.slice(at, 1), Where(name, first + at, "row"))
        return
    for at, fields in enumerate(rows):
        yield Record(Where(name, first + at, "row"), fields)


def _single(row: Any, where: Where) -> Record:
    try:
        return Record(where, row.to_pylist()[0])
    except UnicodeDecodeError:
        return Record(where, {}, f"field {_not_text(row)!r} is not UTF-8 text")
    except (ValueError, OverflowError) as error:
        return Record(where, {}, f"holds a value that cannot be read ({error})")


def _not_text(row: Any) -> str:
    """The first column whose value is no text."""
    for name in row.schema.names:
        try:
            row.column(name).to_pylist()
        except UnicodeDecodeError:
            return str(name)
    return ""
