"""The prepared data set on disk: documents and packing plan as Arrow files, read through a memory map.

```
documents.arrow   ids: list<int32>   trained: list<int32>, flat [start, end) pairs     one line a document
rows.arrow        documents: list<int64>                                               one line a row
```
A training process holds the plan and the row lengths (24 bytes a document); tokens stay in the page cache, shared by
all ranks of a node.
"""

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
LINES = 10_000
"""Documents a record batch: what the writer holds in memory."""

_DOCUMENT = pa.schema([("ids", pa.large_list(pa.int32())), ("trained", pa.large_list(pa.int32()))])


class DocumentWriter:
    """Writes documents one by one, in bounded memory."""

    def __init__(self, folder: Path) -> None:
        self._writer = pa.ipc.new_file(str(folder / DOCUMENTS), _DOCUMENT)
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

    def _flush(self) -> None:
        if self._ids:
            self._writer.write_batch(pa.record_batch([self._ids, self._trained], schema=_DOCUMENT))
            self._ids, self._trained = [], []


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes rows.arrow."""
    column = pa.LargeListArray.from_arrays(pa.array(plan.offsets), pa.array(plan.documents))
    table = pa.Table.from_arrays([column], names=["documents"])
    with pa.ipc.new_file(str(folder / ROWS), table.schema) as writer:
        writer.write_table(table)


class PackedRows:
    """Random access to the packed rows of a prepared data set."""

    def __init__(self, folder: Path) -> None:
        documents = _mapped(folder / DOCUMENTS)
        self._ids = [_Lists(chunk) for chunk in documents.column("ids").chunks]
        self._trained = [_Lists(chunk) for chunk in documents.column("trained").chunks]
        self._starts = np.cumsum([0] + [len(chunk) for chunk in self._ids])
        rows = _mapped(folder / ROWS).column("documents").combine_chunks()
        lists = _Lists(rows)
        self.plan = Plan(lists.values[lists.offsets[0] : lists.offsets[-1]], lists.offsets - lists.offsets[0])
        lengths = np.concatenate([chunk.lengths for chunk in self._ids] or [np.zeros(0, np.int64)])
        self.lengths: NDArray[np.int64] = np.add.reduceat(lengths[self.plan.documents], self.plan.offsets[:-1])
        """Tokens of each row, padding excluded."""

    def __len__(self) -> int:
        return self.plan.rows

    def row(self, index: int) -> dict[str, NDArray[np.int64]]:
        """One row: `input_ids`, `position_ids`, `labels`, each of shape [tokens of the row], without padding.

        Positions begin at 0 in each document, which is how attention knows the borders. The label at a place is that
        place's own token (models shift by one) where it is trained, else IGNORED.
        """
        length = int(self.lengths[index])
        ids, positions = np.empty(length, np.int64), np.empty(length, np.int64)
        labels = np.full(length, IGNORED, np.int64)
        start = 0
        for document in self.plan.row(index):
            tokens, trained = self.document(int(document))
            end = start + len(tokens)
            ids[start:end] = tokens
            positions[start:end] = np.arange(len(tokens))
            for first, last in trained.reshape(-1, 2):
                labels[start + first : start + last] = tokens[first:last]
            start = end
        return {"input_ids": ids, "position_ids": positions, "labels": labels}

    def document(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokens and flat trained spans of one document, as views of the memory map."""
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        line = index - int(self._starts[chunk])
        return self._ids[chunk].item(line), self._trained[chunk].item(line)


class _Lists:
    """A list array as two numpy views: no Python object per element."""

    def __init__(self, array: Any) -> None:
        self.offsets: NDArray[np.int64] = array.offsets.to_numpy()
        self.values: NDArray[Any] = array.values.to_numpy()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def item(self, line: int) -> NDArray[Any]:
        return self.values[self.offsets[line] : self.offsets[line + 1]]


def _mapped(path: Path) -> Any:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
