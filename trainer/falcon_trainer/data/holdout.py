"""Which records are held out of training for validation: decided by what a record says, never by where it stands.

A record's key is a hash of its text under the run's seed. So the choice is the same whatever the order of files and
however many workers there are, equal records fall on one side, and another seed gives another choice.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from falcon_trainer.data.formats import Document
from falcon_trainer.outcome import ExitCode, StageError

Keys = NDArray[np.uint64]


class Side(Enum):
    """What becomes of a valid record."""

    TRAINING = auto()
    VALIDATION = auto()
    LEFT_OUT = auto()
    """A training record that says the same as one of the validation split: it would be measured on what it taught."""


def key_of(document: Document, seed: int) -> int:
    """64 bits that stand for what the document says (two of a million different ones agree in one run of 37 million).

    Raises UnicodeEncodeError where a text holds half a surrogate pair, which no tokenizer takes either.
    """
    hashed = hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, "little"))
    for segment in document:
        text = segment.text.encode()
        hashed.update(b"%d:%d:" % (segment.answer, len(text)))
        hashed.update(text)
    return int.from_bytes(hashed.digest(), "little")


def duplicates(keys: Keys) -> int:
    """Records that say the same as an earlier one."""
    return len(keys) - len(np.unique(keys))


@dataclass(frozen=True)
class Holdout:
    """The choice: keys up to `ceiling` (of a fraction), or the records of validation files, whose keys are `split`."""

    ceiling: int = -1
    split: frozenset[int] = frozenset()

    @classmethod
    def of_fraction(cls, keys: Keys, fraction: float) -> "Holdout":
        """The share of records with the smallest keys: at least one, never all. Raises StageError(DATA)."""
        distinct = np.unique(keys)
        if len(distinct) < 2:
            raise StageError(
                ExitCode.DATA,
                "EmptyValidation",
                f"dataset.validation.fraction {fraction:g} cannot hold out a part of {len(distinct)} different "
                "records: give more records, or leave validation out.",
            )
        count = min(max(round(fraction * len(distinct)), 1), len(distinct) - 1)
        return cls(ceiling=int(distinct[count - 1]))

    @classmethod
    def of_split(cls, keys: Iterable[int]) -> "Holdout":
        """The records of the validation files, and what says the same in the others left out."""
        return cls(split=frozenset(keys))

    def side(self, key: int, *, of_validation_file: bool) -> Side:
        if of_validation_file or key <= self.ceiling:
            return Side.VALIDATION
        return Side.LEFT_OUT if key in self.split else Side.TRAINING
