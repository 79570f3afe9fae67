"""One set of rows on disk, of training or of validation: documents that fit, in the order of the records, and rows."""

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from falcon_trainer.config import Dataset
from falcon_trainer.data.fitting import Fitting
from falcon_trainer.data.packing import Plan, concatenate, one_each, pack
from falcon_trainer.data.store import DocumentWriter, write_plan
from falcon_trainer.data.tokenization import Tokens


class RowSet:
    """Writes a set into a folder. Holds 16 bytes of each document in memory."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._dataset = folder, dataset
        self._writer = DocumentWriter(folder)
        self._whole, self._stored = array("q"), array("q")
        self.fitting = Fitting(dataset)
        self.records = self.trained = self.rows = self.largest_id = 0
        """Records that are in the set, whole or cut; tokens that are trained; rows; the largest token."""

    @property
    def whole(self) -> NDArray[np.int64]:
        """Tokens of each document of these records, before anything was cut."""
        return np.array(self._whole, np.int64)

    @property
    def stored(self) -> NDArray[np.int64]:
        """Tokens of each stored document."""
        return np.array(self._stored, np.int64)

    @property
    def tokens(self) -> int:
        """Tokens of all stored documents."""
        return int(self.stored.sum())

    def add(self, record: Sequence[Tokens]) -> bool:
        """Stores the documents of one record; False where it is left out."""
        documents = self.fitting.documents(record)
        for document in documents:
            self._writer.add(document)
            self._stored.append(len(document.ids))
            self.trained += document.trained_count
            self.largest_id = max(self.largest_id, *document.ids)
        if documents:
            self.records += 1
            self._whole.extend(len(tokens.ids) for tokens in record)
        return bool(documents)

    def close(self, seed: int) -> None:
        """Writes the plan; `seed` decides the order of equal documents."""
        self._writer.close()
        plan = self._plan(seed)
        write_plan(self._folder, plan)
        self.rows = plan.rows

    def _plan(self, seed: int) -> Plan:
        if self._dataset.packing == "best-fit":
            return pack(self.stored, self._dataset.sequence_length, seed=seed)
        if self._dataset.packing == "concatenate":
            return concatenate(self.stored, self._dataset.sequence_length)
        return one_each(len(self._stored))
