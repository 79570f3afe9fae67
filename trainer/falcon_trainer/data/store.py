"""The prepared data set on disk: documents and packing plan as Arrow files, read through a memory map.

```
documents.arrow   ids: list<uint16>   trained: list<int32>, flat [start, end) pairs     one line a document
rows.arrow        documents: list<int64>                                                one line a row
```
Falcon's 65,024 tokens fit into two bytes, which halves what is written, read over the network and held in the page
cache; a larger number makes all ids four bytes wide. A training process holds where each document lies (32 bytes a
document); plan and tokens stay in the page cache, shared by all ranks of a node. A row is gathered in 20 to 60 µs, so
that reading them in another order each epoch costs nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from falcon_trainer.data.packing import Plan
from falcon_trainer.data.tokenization import Tokens

DOCUMENTS = "documents.arrow"
ROWS = "rows.arrow"
IGNORED = -100
"""Label of a token that does not count in the loss (torch's and transformers' convention)."""
LINES, TOKENS = 10_000, 4_000_000
"""Documents and tokens of a record batch, whichever comes first: what the writer holds in memory, some 150 MB."""


def _schema(ids: Any) -> Any:
    return pa.schema([("ids", pa.large_list(ids)), ("trained", pa.large_list(pa.int32()))])


class DocumentWriter:
    """Writes documents one by one, in bounded memory."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / DOCUMENTS
        self._open(_schema(pa.uint16()))
        self._ids: list[list[int]] = []
        self._trained: list[list[int]] = []

    def add(self, tokens: Tokens) -> None:
        self._ids.append(tokens.ids)
        self._trained.append(tokens.trained)
        if len(self._ids) >= LINES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _open(self, schema: Any) -> None:
        self._schema, self._writer = schema, pa.ipc.new_file(str(self._file), schema)

    def _flush(self) -> None:
        if not self._ids:
            return
        try:
            batch = self._batch()
        except (pa.ArrowInvalid, OverflowError):
            self._widen()
            batch = self._batch()
        self._writer.write_batch(batch)
        self._ids, self._trained = [], []

    def _batch(self) -> Any:
        return pa.record_batch([self._ids, self._trained], schema=self._schema)

    def _widen(self) -> None:
        """Writes anew, with ids of four bytes, what was written so far."""
        self._writer.close()
        narrow = self._file.with_suffix(".narrow")
        self._file.rename(narrow)
        self._open(_schema(pa.int32()))
        with pa.memory_map(str(narrow)) as source:
            written = pa.ipc.open_file(source)
            for number in range(written.num_record_batches):
                self._writer.write_batch(written.get_batch(number).cast(self._schema))
        narrow.unlink()


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes rows.arrow."""
    column = pa.LargeListArray.from_arrays(pa.array(plan.offsets), pa.array(plan.documents))
    table = pa.Table.from_arrays([column], names=["documents"])
    with pa.ipc.new_file(str(folder / ROWS), table.schema) as writer:
        writer.write_table(table)


class PackedRows:
    """Random access to the packed rows of a prepared data set."""

    def __init__(self, folder: Path) -> None:
        documents = _File(folder / DOCUMENTS)
        self._ids, self._trained = documents.lists("ids"), documents.lists("trained")
        rows = _File(folder / ROWS).table.column("documents").combine_chunks()
        offsets = rows.offsets.to_numpy()
        self.plan = Plan(rows.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0])
        sizes = self._ids.sizes[self.plan.documents]
        self.lengths: NDArray[np.int64] = np.add.reduceat(sizes, self.plan.offsets[:-1])
        """Tokens of each row, padding excluded."""
        self._positions = np.arange(sizes.max(initial=0))

    def __len__(self) -> int:
        return self.plan.rows

    def row(self, index: int) -> dict[str, NDArray[np.int64]]:
        """One row: `input_ids`, `position_ids`, `labels`, each of shape [tokens of the row], without padding.

        Positions begin at 0 in each document, which is how attention knows the borders. The label at a place is that
        place's own token (models shift by one) where it is trained, else IGNORED.
        """
        documents = self.plan.row(index)
        tokens = self._ids.items(documents)
        ids = np.concatenate(tokens, dtype=np.int64)
        labels = np.full(len(ids), IGNORED)
        start = 0
        for part, trained in zip(tokens, self._trained.items(documents), strict=True):
            edges = iter(trained.tolist())
            for first, last in zip(edges, edges, strict=True):
                labels[start + first : start + last] = part[first:last]
            start += len(part)
        positions = np.concatenate([self._positions[: len(part)] for part in tokens])
        return {"input_ids": ids, "position_ids": positions, "labels": labels}

    def document(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Tokens and flat trained spans of one document, as views of the memory map."""
        (tokens,), (trained,) = (lists.items(np.array([index])) for lists in (self._ids, self._trained))
        return tokens, trained


class _File:
    """An Arrow file, mapped into memory once."""

    def __init__(self, path: Path) -> None:
        with pa.memory_map(str(path)) as file:
            self._bytes = file.read_buffer()
        self.table = pa.ipc.open_file(pa.BufferReader(self._bytes)).read_all()

    def lists(self, column: str) -> "_Lists":
        """A column of lists of numbers."""
        kind = np.dtype(self.table.schema.field(column).type.value_type.to_pandas_dtype())
        file = np.frombuffer(self._bytes, kind, len(self._bytes) // kind.itemsize)
        starts, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for chunk in self.table.column(column).chunks:
            offsets = chunk.offsets.to_numpy()
            starts.append(offsets[:-1] + (chunk.values.buffers()[1].address - self._bytes.address) // kind.itemsize)
            sizes.append(np.diff(offsets))
        return _Lists(file, np.concatenate(starts), np.concatenate(sizes))


@dataclass(frozen=True)
class _Lists:
    """Lists of all record batches as slices of one flat view of the file: none is copied or made a Python object."""

    file: NDArray[Any]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def items(self, lines: NDArray[np.int64]) -> list[NDArray[Any]]:
        starts = self.starts[lines].tolist()
        return [self.file[a:b] for a, b in zip(starts, (self.starts[lines] + self.sizes[lines]).tolist(), strict=True)]
