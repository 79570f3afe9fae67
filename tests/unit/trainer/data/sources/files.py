"""The same records written as each kind of file."""

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

Rows = Sequence[Mapping[str, str]]


def json_lines(rows: Rows, path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def json_array(rows: Rows, path: Path) -> None:
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def csv_file(rows: Rows, path: Path, delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["a"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def tsv_file(rows: Rows, path: Path) -> None:
    csv_file(rows, path, "\t")


def parquet_file(rows: Rows, path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=3)


def arrow_file(rows: Rows, path: Path) -> None:
    table = pa.Table.from_pylist(list(rows))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def arrow_stream(rows: Rows, path: Path) -> None:
    table = pa.Table.from_pylist(list(rows))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


WRITERS: Mapping[str, tuple[str, Callable[[Rows, Path], None]]] = {
    "JSON Lines": (".jsonl", json_lines),
    "a JSON array": (".json", json_array),
    "CSV": (".csv", csv_file),
    "TSV": (".tsv", tsv_file),
    "Parquet": (".parquet", parquet_file),
    "an Arrow file": (".arrow", arrow_file),
    "an Arrow stream": (".arrow", arrow_stream),
}
"""kind → suffix and writer"""


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content))


COMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


def write(rows: Rows, folder: Path, kind: str, compression: str = "", stem: str = "records") -> Path:
    """Writes `rows` to `folder`; returns the file."""
    suffix, writer = WRITERS[kind]
    plain = folder / f"{stem}{suffix}"
    writer(rows, plain)
    if not compression:
        return plain
    packed = folder / (plain.name + compression)
    packed.write_bytes(COMPRESSORS[compression](plain.read_bytes()))
    plain.unlink()
    return packed


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"instruction": f"Question {at}?", "response": f"Answer\n{at}, “so”."} for at in range(count)]
