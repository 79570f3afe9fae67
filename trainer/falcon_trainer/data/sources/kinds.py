"""Kinds of files that records are read from, told by the file's name or, failing that, by its first bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Format = Literal["json", "csv", "tsv", "parquet", "arrow"]
Compression = Literal["gzip", "bzip2", "xz", "zstd"]

FORMATS: Mapping[str, Format] = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
COMPRESSIONS: Mapping[str, Compression] = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
KNOWN = f"{', '.join(FORMATS)}, each also with {', '.join(COMPRESSIONS)}"
"""What a sentence calls the known kinds."""

FORMAT_MAGIC: Mapping[bytes, Format] = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",  # a stream begins with the continuation marker
    b"[": "json",
    b"{": "json",
}
COMPRESSION_MAGIC: Mapping[bytes, Compression] = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
BLANK = b"\xef\xbb\xbf \t\r\n"
"""What may stand before JSON: a byte order mark, white space."""


@dataclass(frozen=True)
class Kind:
    """How the records of a file are written."""

    format: Format
    compression: Compression | None = None


def named(name: str) -> Kind | None:
    """The kind that a file's name tells, or None where it tells none."""
    stem, dot, last = name.lower().rpartition(".")
    compression = COMPRESSIONS.get(dot + last)
    if compression:
        _, dot, last = stem.rpartition(".")
    format_ = FORMATS.get(dot + last)
    return Kind(format_, compression) if format_ else None


def compression_of(name: str, head: bytes) -> Compression | None:
    """The compression that a file's name or its first bytes tell."""
    by_name = COMPRESSIONS.get("." + name.lower().rpartition(".")[2])
    return by_name or next((found for magic, found in COMPRESSION_MAGIC.items() if head.startswith(magic)), None)


def unnamed_compression(head: bytes) -> Compression | None:
    """The compression that the first bytes of a text file tell although its name does not: buckets and web servers may
    hold `a.jsonl` packed. `BZh` is no sign of it, text may begin so.
    """
    return next(
        (found for magic, found in COMPRESSION_MAGIC.items() if not magic.isascii() and head.startswith(magic)), None
    )


def format_of(head: bytes) -> Format | None:
    """The format that the first bytes of a file tell, once decompressed. CSV has no mark of its own."""
    for magic, found in FORMAT_MAGIC.items():
        if head.startswith(magic) or (found == "json" and head.lstrip(BLANK).startswith(magic)):
            return found
    return None
