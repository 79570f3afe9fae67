"""W + scale x B x A, written shard by shard and, within a matrix, by blocks of rows.

Memory is bounded by the block and the adapter's pair for one matrix, never by the model or a shard. Every element is
computed in fp32 and rounded once, as PEFT's own merge does with an fp32 adapter.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from falcon_trainer.artifacts import FileEntry
from falcon_trainer.model.shapes import ADAPTER_PREFIX
from falcon_trainer.model.weights import TORCH_NAMES, TensorEntry, Weights, read_header

BLOCK_BYTES = 64 << 20
"""Of fp32 elements in work at one time."""
INDEX = "model.safetensors.index.json"
FORMAT_NAMES = {name: code for code, name in TORCH_NAMES.items()}


@dataclass(frozen=True)
class Update:
    """The adapter as a change of the base's matrices."""

    adapter: Weights
    scale: float

    def pair(self, base_name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A [rank, in] and B [out, rank] of a base matrix in fp32; None where the adapter leaves it alone."""
        module = ADAPTER_PREFIX + base_name.removesuffix(".weight")
        a, b = f"{module}.lora_A.weight", f"{module}.lora_B.weight"
        if not base_name.endswith(".weight") or a not in self.adapter.tensors:
            return None
        return self._whole(a), self._whole(b)

    def _whole(self, name: str) -> torch.Tensor:
        return self.adapter.flat(name).view(self.adapter.tensors[name].shape).float()


def merge_shards(
    base: Weights, update: Update, dtype: str, folder: Path, progress: Callable[[int], None]
) -> dict[str, FileEntry]:
    """Writes the merged shards, and their index, into `folder`; returns their sizes and digests.

    `dtype` is a torch name such as "bfloat16", or "auto" for each tensor's own. `progress` is told the bytes of the
    base that are done.
    """
    entries: dict[str, FileEntry] = {}
    done = 0
    for file in base.files:
        tensors, metadata = read_header(file)
        with (folder / file.name).open("wb") as opened:
            writer = _HashingWriter(opened)
            writer.write(_header(tensors, metadata, dtype))
            for entry in tensors:
                for block in merged_blocks(base, entry, update, dtype):
                    writer.write(block.contiguous().view(torch.uint8).numpy())
                done += entry.bytes
                progress(done)
        entries[file.name] = writer.entry()
    if len(base.files) > 1:
        (folder / INDEX).write_text(json.dumps(_index(base, dtype), indent=1))
    return entries


def merged_blocks(base: Weights, entry: TensorEntry, update: Update, dtype: str) -> Iterator[torch.Tensor]:
    """The merged tensor as consecutive flat blocks."""
    target: torch.dtype = getattr(torch, _target(entry, dtype))
    pair = update.pair(entry.name)
    if pair is None:
        step = BLOCK_BYTES // 4
        for start in range(0, entry.elements, step):
            yield base.flat(entry.name, start, start + step).to(target)
        return
    a, b = pair
    rows = max(1, BLOCK_BYTES // (4 * entry.shape[1]))
    for start in range(0, entry.shape[0], rows):
        part = base.rows(entry.name, start, min(start + rows, entry.shape[0])).float()
        yield (part + update.scale * (b[start : start + rows] @ a)).to(target).flatten()


def _target(entry: TensorEntry, dtype: str) -> str:
    return TORCH_NAMES[entry.dtype] if dtype == "auto" else dtype


def _header(tensors: list[TensorEntry], metadata: dict[str, str], dtype: str) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata or {"format": "pt"}}
    start = 0
    for entry in tensors:
        target = _target(entry, dtype)
        end = start + entry.elements * getattr(torch, target).itemsize
        header[entry.name] = {"dtype": FORMAT_NAMES[target], "shape": entry.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the elements begin aligned, as the format's own writer does it
    return struct.pack("<Q", len(text)) + text


def _index(base: Weights, dtype: str) -> dict[str, object]:
    sizes = [entry.elements * getattr(torch, _target(entry, dtype)).itemsize for entry in base.tensors.values()]
    names = {name: entry.file.name for name, entry in sorted(base.tensors.items())}
    return {"metadata": {"total_size": sum(sizes)}, "weight_map": names}


class _HashingWriter:
    """Digests a file while it is written: reading 360 GB again would take minutes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._bytes = file, hashlib.sha256(), 0

    def write(self, data: object) -> None:
        view = memoryview(data)  # type: ignore[arg-type]
        self._file.write(view)
        self._digest.update(view)
        self._bytes += view.nbytes

    def entry(self) -> FileEntry:
        return FileEntry(bytes=self._bytes, sha256=self._digest.hexdigest())
