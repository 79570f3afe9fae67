"""What becomes of one file of the base: the header of the merged file, and the blocks that fill it."""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from falcon_trainer.model.weights import ITEM_BYTES, TORCH_NAMES, TensorEntry, UnusableWeights, read_header

FORMAT_NAMES = {name: code for code, name in TORCH_NAMES.items()}


@dataclass(frozen=True)
class Block:
    """Consecutive elements of one tensor; of a matrix that is changed, whole rows."""

    entry: TensorEntry
    first: int
    elements: int
    dtype: str
    """Of the merged tensor, as safetensors names it."""

    @property
    def source_offset(self) -> int:
        """Byte of the base's file at which it begins."""
        return self.entry.start + self.first * ITEM_BYTES[self.entry.dtype]

    @property
    def source_bytes(self) -> int:
        return self.elements * ITEM_BYTES[self.entry.dtype]

    @property
    def target_bytes(self) -> int:
        return self.elements * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class ShardPlan:
    """One merged file: its tensors are the base's, in their order."""

    header: bytes
    tensors: Sequence[TensorEntry]
    dtype: str
    """A torch name, or "auto" for each tensor's own."""

    @classmethod
    def of(cls, file: Path, dtype: str) -> "ShardPlan":
        """The plan for a file of the base, of which only the header is read. Raises UnusableWeights."""
        tensors, metadata = read_header(file)
        return cls(_header(tensors, metadata, dtype), tensors, dtype)

    @property
    def bytes(self) -> int:
        return len(self.header) + sum(target_bytes(entry, self.dtype) for entry in self.tensors)

    def blocks(self, size: int, changes: Callable[[str], bool]) -> Iterator[Block]:
        """The tensors in blocks of at most `size` bytes, before and after; `changes` says which tensors are changed.

        Raises UnusableWeights where one row of such a matrix is larger than a block.
        """
        for entry in self.tensors:
            target = target_dtype(entry, self.dtype)
            for first, count in _runs(entry, target, changes(entry.name), size):
                yield Block(entry, first, count, target)


def target_dtype(entry: TensorEntry, dtype: str) -> str:
    """Element type of the merged tensor, as safetensors names it; `dtype` is a torch name or "auto"."""
    return entry.dtype if dtype == "auto" else FORMAT_NAMES[dtype]


def target_bytes(entry: TensorEntry, dtype: str) -> int:
    """Size of the merged tensor."""
    return entry.elements * ITEM_BYTES[target_dtype(entry, dtype)]


def index_of(tensors: Sequence[TensorEntry], dtype: str) -> dict[str, object]:
    """Contents of `model.safetensors.index.json`: the tensors stay in files of the base's names."""
    total = sum(target_bytes(entry, dtype) for entry in tensors)
    names = {entry.name: entry.file.name for entry in sorted(tensors, key=lambda entry: entry.name)}
    return {"metadata": {"total_size": total}, "weight_map": names}


def even_parts(total: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, count) of parts of `total` that are all about as large, at most `most`.

    Of rows, because products of a few of them take another way through the BLAS, slower and with other last bits.
    """
    size = -(-total // -(-total // most)) if total else 1
    for first in range(0, total, size):
        yield first, min(size, total - first)


def _runs(entry: TensorEntry, target: str, changed: bool, block_bytes: int) -> Iterator[tuple[int, int]]:
    """(first element, elements) of each block of a tensor."""
    most = block_bytes // max(ITEM_BYTES[entry.dtype], ITEM_BYTES[target])
    columns = entry.shape[1] if changed else 1
    if columns > most:
        raise UnusableWeights(f"{entry.name} has rows of {columns} elements; at most {most} can be merged")
    for first, rows in even_parts(entry.elements // columns, most // columns):
        yield first * columns, rows * columns


def _header(tensors: Sequence[TensorEntry], metadata: dict[str, str], dtype: str) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata or {"format": "pt"}}
    start = 0
    for entry in tensors:
        target = target_dtype(entry, dtype)
        end = start + target_bytes(entry, dtype)
        header[entry.name] = {"dtype": target, "shape": entry.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the elements begin aligned, as the format's own writer does it
    return struct.pack("<Q", len(text)) + text
