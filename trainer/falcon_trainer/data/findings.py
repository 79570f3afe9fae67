"""What a pass over the records found: those that cannot be used, each with its place, counted by kind.

A data set can have a million broken records, a log has readers and a termination message has 4,096 bytes: so the first
ones are told in full and all are counted.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from falcon_trainer.config import Dataset
from falcon_trainer.outcome import ExitCode, StageError

SHOWN = 20
"""Invalid records that the log lists; all are counted."""
IN_MESSAGE = 5
"""Of these, the ones that the outcome's message lists."""
SENTENCE = 400
"""Bytes of one sentence in the message's JSON: five of them and the counts leave a quarter of the message free."""
PLACE = 120
"""Of these, bytes of the record's place: a file's name may have 255."""
KINDS, KIND = 8, 60
"""Kinds that are told by name, and bytes of such a name."""
NO_ANSWER = "no answer"
"""Kind of a record whose answer is empty: it is well formed and yet teaches nothing."""


@dataclass
class Findings:
    """Counts of the records that were read; `first` holds the sentences of the first invalid ones."""

    valid: int = 0
    duplicates: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)

    @property
    def invalid(self) -> int:
        return self.kinds.total()

    @property
    def records(self) -> int:
        """All that were read."""
        return self.valid + self.invalid

    @property
    def empty_answers(self) -> int:
        return self.kinds[NO_ANSWER]

    def add_invalid(self, place: str, reason: str, kind: str) -> None:
        self.kinds[shortened(kind, KIND)] += 1
        if len(self.first) < SHOWN:
            where = shortened(printable(place), PLACE, keep_end=True)
            self.first.append(shortened(f"{where}: {printable(reason)}", SENTENCE))

    @property
    def counts(self) -> str:
        """The kinds by falling count: `missing field 28, not JSON 2`."""
        told = [f"{kind} {count}" for kind, count in self.kinds.most_common(KINDS)]
        others = self.invalid - sum(count for _, count in self.kinds.most_common(KINDS))
        return ", ".join(told + ([f"others {others}"] if others else []))

    def listing(self, limit: int) -> str:
        more = self.invalid - min(limit, len(self.first))
        return "; ".join(self.first[:limit]) + (f"; and {more} more" if more > 0 else "")

    def log(self) -> None:
        """Prints the first invalid records and the counts; nothing where all can be used."""
        if not self.invalid:
            return
        lines = [f"--- {self.invalid} of {self.records} records cannot be used ---", *self.first]
        if self.invalid > len(self.first):
            lines.append(f"and {self.invalid - len(self.first)} more")
        print("\n".join([*lines, f"by kind: {self.counts}"]), flush=True)


def refuse(findings: Findings, dataset: Dataset, files: Iterable[str]) -> None:
    """Raises StageError(DATA) where there are more invalid records than the spec accepts, or no other ones."""
    told = f"{findings.invalid} of {findings.records} records cannot be used ({findings.counts})"
    if findings.invalid and dataset.on_invalid == "fail":
        raise StageError(
            ExitCode.DATA,
            "InvalidData",
            f"{told}: {findings.listing(IN_MESSAGE)}. Correct them, or set dataset.onInvalid to skip.",
        )
    if not findings.valid:
        raise StageError(ExitCode.DATA, "EmptyDataset", f"The data set is empty: {_emptiness(findings, files)}.")
    if findings.invalid > dataset.max_invalid_fraction * findings.records:
        raise StageError(
            ExitCode.DATA,
            "TooManyInvalidRecords",
            f"{told}, more than dataset.maxInvalidFraction {dataset.max_invalid_fraction:g} of them: "
            f"{findings.listing(IN_MESSAGE)}. Correct them, or raise maxInvalidFraction.",
        )


def _emptiness(findings: Findings, files: Iterable[str]) -> str:
    named = list(files)
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    names = shortened(", ".join(named[:3]) + more, SENTENCE)
    if findings.invalid:
        return (
            f"all {findings.invalid} records in {names} were skipped as invalid ({findings.counts}: "
            f"{findings.listing(3)})"
        )
    return f"there is no record in {names}"


def printable(text: str) -> str:
    """`text` in one line that every terminal and every encoder takes: control characters and halves of surrogate pairs
    are escaped."""
    cut = text[: 4 * SENTENCE]  # a field may hold megabytes
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def shortened(text: str, limit: int, *, keep_end: bool = False) -> str:
    """`text`, cut where its JSON has more than `limit` bytes."""
    if _size(text) <= limit:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        keep = (fits + too_long) // 2
        fits, too_long = (keep, too_long) if _size(_cut(text, keep, keep_end)) <= limit else (fits, keep)
    return _cut(text, fits, keep_end)


def _cut(text: str, keep: int, keep_end: bool) -> str:
    return "…" + text[len(text) - keep :] if keep_end else text[:keep] + "…"


def _size(text: str) -> int:
    """Bytes between the quotes of a JSON string."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2
