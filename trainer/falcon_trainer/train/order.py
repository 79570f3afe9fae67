"""The order of rows: a pure function of seed and position in the run, so a resumed run needs no state for it.

The rows of all epochs, each epoch in its own permutation, form one sequence; optimizer step s takes places
[s x globalBatchSize, (s + 1) x globalBatchSize) of it. A global batch may span two epochs, so no row is dropped and no
tail is padded, whatever the world size. A global batch that is skipped (see `skipped`) is cut out of the sequence: what
stood behind it moves up, and what stood before it stays, so that checkpoints from before it still fit.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from falcon_trainer.data.store import PackedRows


class RowOrder:
    """Which row stands at a place of the sequence."""

    def __init__(self, rows: int, seed: int, batch_size: int = 1, skipped: Iterable[int] = ()) -> None:
        """`skipped` are global batches, of `batch_size` rows each, by their numbers in the uncut sequence."""
        self._rows, self._seed = rows, seed
        self._batch_size, self._skipped = batch_size, sorted(set(skipped))
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def batch(self, step: int) -> int:
        """The number, in the uncut sequence, of the global batch of optimizer step `step` (1-based)."""
        number = step - 1
        for skipped in self._skipped:
            if skipped > number:
                break
            number += 1
        return number

    def row(self, place: int) -> int:
        """The row at `place` (0-based, over all epochs) of what is trained."""
        step, offset = divmod(place, self._batch_size)
        epoch, offset = divmod(self.batch(step + 1) * self._batch_size + offset, self._rows)
        return int(self._permutation(epoch)[offset])

    def rows(self, start: int, end: int) -> list[int]:
        """The rows at places [start, end)."""
        return [self.row(place) for place in range(start, end)]

    def of_step(self, step: int) -> list[int]:
        """The rows of the global batch of optimizer step `step` (1-based)."""
        return self.rows((step - 1) * self._batch_size, step * self._batch_size)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._epochs:
            # Two are kept: a batch can span two epochs, and loader and report read at different places.
            self._epochs = {known: order for known, order in self._epochs.items() if known >= epoch - 1}
            self._epochs[epoch] = np.random.default_rng([self._seed, epoch]).permutation(self._rows)
        return self._epochs[epoch]


class TrainingRows(Dataset[dict[str, Any]]):
    """All rows of the run in order, for a sequential sampler: its length is steps x global batch."""

    def __init__(self, packed: PackedRows, order: RowOrder, places: int) -> None:
        self._packed, self._order, self._places = packed, order, places

    def __len__(self) -> int:
        return self._places

    def __getitem__(self, place: int) -> dict[str, Any]:
        if not 0 <= place < self._places:
            raise IndexError(place)
        return self._packed.row(self._order.row(place))
