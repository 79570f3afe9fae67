"""Reads the records of one file, one at a time."""

import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

from falcon_trainer.data.sources import kinds
from falcon_trainer.data.sources.csv_text import read_csv
from falcon_trainer.data.sources.json_text import read_json
from falcon_trainer.data.sources.kinds import Kind
from falcon_trainer.data.sources.opening import opened
from falcon_trainer.data.sources.record import BrokenFileError, Record
from falcon_trainer.data.sources.tables import read_arrow, read_parquet
from falcon_trainer.outcome import ExitCode, StageError


def read(file: Path, name: str | None = None) -> Iterator[Record]:
    """The records of one file, called `name` in their places (default: the file's own name).

    A record that cannot be read has a `problem`. Raises StageError(DATA) where the file is damaged, cut or of no known
    kind, StageError(NO_INPUT) where it cannot be opened.
    """
    from pyarrow.lib import ArrowException

    shown = name or file.name
    try:
        yield from _records(file, _kind(file, shown), shown)
    except BrokenFileError as error:
        raise StageError(ExitCode.DATA, "InvalidData", f"{shown} {error}.") from error
    except (EOFError, zlib.error, lzma.LZMAError, ArrowException) as error:
        raise _damaged(shown, error) from error
    except OSError as error:
        # The system's errors have a number; those of the decompressors and of Arrow have none.
        raise (unreadable(file, error) if error.errno else _damaged(shown, error)) from error


def unreadable(file: Path, error: OSError) -> StageError:
    return StageError(ExitCode.NO_INPUT, "CannotReadData", f"{file} cannot be read: {error.strerror or error}.")


def _damaged(name: str, error: Exception) -> StageError:
    said = str(error).strip().rstrip(".").splitlines()
    return StageError(
        ExitCode.DATA,
        "DamagedFile",
        f"{name} is damaged, was cut, or is not what its name says ({said[0] if said else type(error).__name__}). "
        "Put the whole file there again.",
    )


def _kind(file: Path, name: str) -> Kind:
    with file.open("rb") as stream:
        head = stream.read(8)
    if kind := kinds.named(name) or kinds.named(file.name):
        return Kind(kind.format, kind.compression or kinds.unnamed_compression(head))
    compression = kinds.compression_of(name, head)
    with opened(file, compression) as unpacked:
        found = kinds.format_of(unpacked.read(4096))
    if found is None:
        raise StageError(
            ExitCode.DATA,
            "UnknownKindOfFile",
            f"Neither its name nor its beginning tells what kind of file {name} is. Known are {kinds.KNOWN}.",
        )
    return Kind(found, compression)


def _records(file: Path, kind: Kind, name: str) -> Iterator[Record]:
    if kind.format == "parquet":
        yield from read_parquet(file, kind.compression, name)
    elif kind.format == "arrow":
        yield from read_arrow(file, kind.compression, name)
    else:
        with opened(file, kind.compression) as stream:
            yield from (
                read_json(stream, name)
                if kind.format == "json"
                else read_csv(stream, name, delimiter="\t" if kind.format == "tsv" else ",")
            )
