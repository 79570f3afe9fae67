"""From sources to documents: every record is read, converted and accounted for before anything else is paid for.

Two passes over the files: the first checks all records and keeps 8 bytes of each, the second hands them out. What a
pass holds in memory does not grow with the texts.
"""

import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falcon_trainer.config import Dataset
from falcon_trainer.data.findings import Findings
from falcon_trainer.data.formats import Conversion, Document, InvalidRecord
from falcon_trainer.data.holdout import Holdout, duplicates, key_of
from falcon_trainer.data.sources import Record, Sources
from falcon_trainer.data.sources.record import path_of_broken_text
from falcon_trainer.outcome import ExitCode, StageError

EVERY = 10_000
"""Records between two words on the progress."""
NOT_UNICODE = "not Unicode"
TOO_DEEP = "nested too deeply"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Example:
    """A valid record: what it says, and the key that stands for it (see `holdout.key_of`)."""

    record: Record
    document: Document
    key: int
    of_validation_file: bool


class Records:
    """The records of a data set, in the order of the spec. Every pass over the files begins anew."""

    def __init__(self, dataset: Dataset, sources: Sources, *, eos_token: str | None, seed: int) -> None:
        self._validation, self._seed = dataset.validation, seed
        self._read = sources.read
        self._files = [(file, False) for file in sources.training()] + [(file, True) for file in sources.validation()]
        self.conversion = Conversion.of(dataset, eos_token)
        self.findings = Findings()
        self._keys, self._of_split = array("Q"), array("Q")

    @property
    def files(self) -> list[Path]:
        return [file for file, _ in self._files]

    @property
    def keys(self) -> NDArray[np.uint64]:
        """The key of every valid record, in order, once they were checked."""
        return np.frombuffer(self._keys, np.uint64) if self._keys else np.zeros(0, np.uint64)

    def check(self, say: Say = lambda said: None) -> Findings:
        """Reads everything once; `findings.refuse` decides whether what was found is accepted."""
        self.findings, self._keys, self._of_split = Findings(), array("Q"), array("Q")
        for example in self._examples(self.findings):
            self._keys.append(example.key)
            if example.of_validation_file:
                self._of_split.append(example.key)
            if len(self._keys) % EVERY == 0:
                say(f"{self.findings.records} records checked")
        self.findings.duplicates = duplicates(self.keys)
        return self.findings

    def holdout(self) -> Holdout:
        """Which of the checked records are held out. Raises StageError(DATA) where none can be, or none would stay."""
        if self._validation is None:
            return Holdout()
        if self._validation.fraction is not None:
            return Holdout.of_fraction(self.keys, self._validation.fraction)
        return Holdout.of_split(self._of_split)

    def examples(self) -> Iterator[Example]:
        """The checked records once more. Raises StageError(DATA) where they are no longer the same."""
        again = Findings()
        for number, example in enumerate(self._examples(again)):
            if number >= len(self._keys) or example.key != self._keys[number]:
                raise _changed(example.record.where.file)
            yield example
        if again.valid != self.findings.valid:
            raise _changed("the last file")

    def _examples(self, findings: Findings) -> Iterator[Example]:
        for file, of_validation_file in self._files:
            for record in self._read(file):
                place = str(record.where)
                try:
                    if record.problem:
                        findings.add_invalid(place, record.problem, _kind_of(record.problem))
                        continue
                    document = self.conversion.document(record.fields)
                    example = Example(record, document, key_of(document, self._seed), of_validation_file)
                except InvalidRecord as error:
                    findings.add_invalid(place, str(error), error.kind)
                except UnicodeEncodeError:
                    path = path_of_broken_text(record.fields)
                    findings.add_invalid(place, f"field {path!r} holds half a character", NOT_UNICODE)
                except RecursionError:
                    findings.add_invalid(place, f"field {_deepest(record.fields)!r} is nested too deeply", TOO_DEEP)
                else:
                    findings.valid += 1
                    yield example


def _kind_of(problem: str) -> str:
    """The problem without its details: `is not JSON: Expecting value …` is of the kind `not JSON`."""
    words = re.sub(r"^field '.*?' ", "", problem).partition(":")[0].partition(" (")[0]
    return re.sub(r"(?<= )\d+", "n", words.removeprefix("is "))


def _deepest(fields: dict[str, Any]) -> str:
    """The first field that holds other values: the one to look into."""
    return next((name for name, value in fields.items() if isinstance(value, (dict, list))), "")


def _changed(file: str) -> StageError:
    return StageError(
        ExitCode.DATA,
        "DataChanged",
        f"{file} changed while it was read. Start the run again when nothing writes to it any more.",
    )
