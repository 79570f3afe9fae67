"""From sources to documents: reads, recognises the format, and accounts for every record that cannot be used."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from falcon_trainer.config import Dataset
from falcon_trainer.data.formats import Conversion, Document, InvalidRecord
from falcon_trainer.data.sources import Record, files_of, read
from falcon_trainer.outcome import ExitCode, StageError

SHOWN = 20
"""Invalid records that are listed; the others are counted."""
IN_MESSAGE = 5
"""Of these, the ones that fit into the outcome's message."""


@dataclass
class Findings:
    """What a pass over the records found."""

    records: int = 0
    invalid: int = 0
    first_invalid: list[str] = field(default_factory=list)

    def add_invalid(self, sentence: str) -> None:
        self.invalid += 1
        if len(self.first_invalid) < SHOWN:
            self.first_invalid.append(sentence)

    def listing(self, limit: int) -> str:
        more = self.invalid - min(limit, len(self.first_invalid))
        return "; ".join(self.first_invalid[:limit]) + (f"; and {more} more" if more > 0 else "")


class Records:
    """The records of a data set, in the order of the spec. Every pass over the files begins anew."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.files: list[Path] = files_of(dataset)
        self.conversion = Conversion.of(dataset, None)

    def check(self) -> Findings:
        """Reads everything once. Raises StageError(DATA) where records are invalid (unless skipped) or none is left."""
        findings = Findings()
        for _ in self._valid(findings):
            findings.records += 1
        if findings.invalid and self._dataset.on_invalid == "fail":
            raise StageError(
                ExitCode.DATA,
                "InvalidData",
                f"{findings.invalid} of {findings.invalid + findings.records} records cannot be used: "
                f"{findings.listing(IN_MESSAGE)}. Correct them, or set dataset.onInvalid to skip.",
            )
        if not findings.records:
            raise StageError(ExitCode.DATA, "EmptyDataset", f"The data set is empty: {self._emptiness(findings)}.")
        return findings

    def documents(self) -> Iterator[tuple[Record, Document]]:
        """The valid records with their documents."""
        return self._valid(Findings())

    def _valid(self, findings: Findings) -> Iterator[tuple[Record, Document]]:
        for file in self.files:
            for record in read(file):
                try:
                    yield record, self._document(record)
                except InvalidRecord as error:
                    findings.add_invalid(f"{record.where}: {error}")

    def _document(self, record: Record) -> Document:
        if record.problem:
            raise InvalidRecord("record", "not JSON", record.problem, subject="")
        return self.conversion.document(record.fields)

    def _emptiness(self, findings: Findings) -> str:
        names = ", ".join(file.name for file in self.files[:3])
        if findings.invalid:
            return f"all {findings.invalid} records in {names} were skipped as invalid ({findings.listing(3)})"
        return f"there is no record in {names}"
