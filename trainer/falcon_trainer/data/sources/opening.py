"""Opens files, decompressing on the way."""

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from falcon_trainer.data.sources.kinds import Compression

BUFFER = 1 << 20


def _zstd(file: Path) -> Any:
    import pyarrow as pa

    # Python's own comes with 3.14.
    return pa.CompressedInputStream(str(file), "zstd")


DECOMPRESSORS: Mapping[Compression, Callable[[Path], Any]] = {
    "gzip": gzip.GzipFile,
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "zstd": _zstd,
}


def opened(file: Path, compression: Compression | None) -> io.BufferedReader:
    """The file's bytes, decompressed, one after the other."""
    return io.BufferedReader(DECOMPRESSORS[compression](file) if compression else io.FileIO(file), BUFFER)


@contextmanager
def unpacked(file: Path, compression: Compression | None) -> Iterator[str]:
    """Path of the file's bytes for readers that jump in it: what is compressed is unpacked to a temporary file."""
    if compression is None:
        yield str(file)
        return
    with tempfile.NamedTemporaryFile(suffix=file.name) as plain:
        with opened(file, compression) as stream:
            shutil.copyfileobj(stream, plain, BUFFER)
        plain.flush()
        yield plain.name
