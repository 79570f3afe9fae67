"""What becomes of one file of the base: the header of the merged file, and the blocks that fill it. Pure."""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from falcon_trainer.model.weights import ITEM_BYTES, TORCH_NAMES, TensorEntry, UnusableWeights

FORMAT_NAMES = {name: code for code, name in TORCH_NAMES.items()}


@dataclass(frozen=True)
class Block:
    """Consecutive elements of one tensor; of a matrix that is changed, whole rows."""

    entry: TensorEntry
    first: int
    elements: int
    dtype: str
    """Of the merged tensor, as safetensors names it."""
    offset: int
    """Byte of the merged file at which it begins."""

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
    """One merged file."""

    header: bytes
    blocks: list[Block]
    bytes: int


def target_dtype(entry: TensorEntry, dtype: str) -> str:
    """Element type of the merged tensor, as safetensors names it; `dtype` is a torch name or "auto"."""
    return entry.dtype if dtype == "auto" else FORMAT_NAMES[dtype]


def plan_shard(
    tensors: Sequence[TensorEntry],
    metadata: dict[str, str],
    dtype: str,
    changes: Callable[[str], bool],
    block_bytes: int,
) -> ShardPlan:
    """The tensors of one file in blocks of at most `block_bytes`, before and after.

    `changes` says whether a tensor is changed. Raises UnusableWeights where one row of such a matrix exceeds a block.
    """
    header = _header(tensors, metadata, dtype)
    blocks, offset = list[Block](), len(header)
    for entry in tensors:
        target = target_dtype(entry, dtype)
        for first, count in _runs(entry, target, changes(entry.name), block_bytes):
            blocks.append(Block(entry, first, count, target, offset))
            offset += blocks[-1].target_bytes
    return ShardPlan(header, blocks, offset)


def index_of(tensors: Sequence[TensorEntry], dtype: str) -> dict[str, object]:
    """Contents of `model.safetensors.index.json`: the tensors stay in files of the base's names."""
    total = sum(entry.elements * ITEM_BYTES[target_dtype(entry, dtype)] for entry in tensors)
    names = {entry.name: entry.file.name for entry in sorted(tensors, key=lambda entry: entry.name)}
    return {"metadata": {"total_size": total}, "weight_map": names}


def _runs(entry: TensorEntry, target: str, changed: bool, block_bytes: int) -> Iterator[tuple[int, int]]:
    """(first element, elements) of each block of a tensor."""
    most = block_bytes // max(ITEM_BYTES[entry.dtype], ITEM_BYTES[target])
    if changed:
        columns = entry.shape[1]
        if columns > most:
            raise UnusableWeights(f"{entry.name} has rows of {columns} elements; at most {most} can be merged")
        most -= most % columns
    for first in range(0, entry.elements, most):
        yield first, min(most, entry.elements - first)


def _header(tensors: Sequence[TensorEntry], metadata: dict[str, str], dtype: str) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata or {"format": "pt"}}
    start = 0
    for entry in tensors:
        target = target_dtype(entry, dtype)
        end = start + entry.elements * ITEM_BYTES[target]
        header[entry.name] = {"dtype": target, "shape": entry.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the elements begin aligned, as the format's own writer does it
    return struct.pack("<Q", len(text)) + text
