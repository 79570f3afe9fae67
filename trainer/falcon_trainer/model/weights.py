"""The safetensors files of a model folder as memory-mapped flat tensors: nothing is read before it is touched.

File format: 8 bytes little-endian header length, a JSON header of that length, then the raw elements
(https://huggingface.co/docs/safetensors#format).
"""

import json
import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ITEM_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
TORCH_NAMES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
HEADER_LIMIT = 100_000_000
"""Bytes; the limit of the safetensors library."""


class UnusableWeights(Exception):  # noqa: N818 - it is said of a file
    """A safetensors file that is cut, foreign or of an element type that this product does not train."""


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Byte offset in the file."""

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * ITEM_BYTES[self.dtype]


def read_header(file: Path) -> tuple[list[TensorEntry], dict[str, str]]:
    """The tensors of one file in the order of their bytes, and the file's own metadata.

    Raises UnusableWeights where the file is no whole safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        prefix = opened.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise UnusableWeights(f"{file} is no safetensors file, or only the beginning of one")
        try:
            header = json.loads(opened.read(length))
        except ValueError as error:
            raise UnusableWeights(f"{file} has a header that cannot be read: {error}") from error
    metadata = header.pop("__metadata__", {})
    entries = [_entry(file, name, fields, 8 + length) for name, fields in header.items()]
    end = max((entry.start + entry.bytes for entry in entries), default=8 + length)
    if end != size:
        raise UnusableWeights(f"{file} has {size} bytes instead of {end}: the download or copy was cut")
    return sorted(entries, key=lambda entry: entry.start), metadata


def _entry(file: Path, name: str, fields: dict[str, object], base: int) -> TensorEntry:
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if dtype not in ITEM_BYTES:
        raise UnusableWeights(f"{file}: {name} has element type {dtype}; {', '.join(ITEM_BYTES)} are known")
    assert isinstance(dtype, str)
    assert isinstance(shape, list)
    assert isinstance(offsets, list)
    entry = TensorEntry(name, file, dtype, tuple(shape), base + offsets[0])
    if entry.bytes != offsets[1] - offsets[0]:
        raise UnusableWeights(f"{file}: {name} does not fill its place in the file")
    return entry


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the model: those of the index, else `model.safetensors`, else every safetensors file.

    Raises UnusableWeights where the index names a file that is not there.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        single = folder / "model.safetensors"
        return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UnusableWeights(f"{folder} lacks {', '.join(missing[:3])} ({len(missing)} of {len(names)} weight files)")
    return [folder / name for name in names]


class Weights:
    """All tensors of some safetensors files by name. Mappings are private and shared with the page cache."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.tensors = {entry.name: entry for file in self.files for entry in read_header(file)[0]}
        self._maps: dict[Path, mmap.mmap] = {}

    @classmethod
    def of(cls, folder: Path) -> "Weights":
        """The weights of a model folder. Raises UnusableWeights."""
        return cls(weight_files(folder))

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.tensors.values())

    @property
    def parameters(self) -> int:
        return sum(entry.elements for entry in self.tensors.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.tensors.items()}

    def flat(self, name: str, start: int = 0, end: int | None = None) -> "torch.Tensor":
        """Elements [start, end) of a tensor as a one-dimensional view of the file."""
        import torch

        entry = self.tensors[name]
        end = entry.elements if end is None else min(end, entry.elements)
        dtype: torch.dtype = getattr(torch, TORCH_NAMES[entry.dtype])
        if start >= end:
            return torch.empty(0, dtype=dtype)
        offset = entry.start + start * ITEM_BYTES[entry.dtype]
        return torch.frombuffer(self._map(entry.file), dtype=dtype, count=end - start, offset=offset)

    def rows(self, name: str, start: int, end: int) -> "torch.Tensor":
        """Rows [start, end) of a matrix, shape [end - start, columns], as a view of the file."""
        columns = self.tensors[name].shape[1]
        return self.flat(name, start * columns, end * columns).view(-1, columns)

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            with file.open("rb") as opened:
                # Copy-on-write, never written: torch wants a writable buffer, the file stays as it is.
                self._maps[file] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._maps[file]
