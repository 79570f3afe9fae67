"""Tokenizes examples and writes them as rows: the training rows, and the validation rows in a folder beside them."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from falcon_trainer.config import Dataset
from falcon_trainer.data.contents import VALIDATION
from falcon_trainer.data.findings import IN_MESSAGE, Findings
from falcon_trainer.data.formats import Document
from falcon_trainer.data.holdout import Holdout, Side
from falcon_trainer.data.records import EVERY, Example, Say
from falcon_trainer.data.rowset import RowSet
from falcon_trainer.data.samples import Samples
from falcon_trainer.data.tokenization import Encoder, Tokens
from falcon_trainer.outcome import ExitCode, StageError

SAMPLES = 3
"""Records that are kept as prompts: the merged model is checked with them, the report shows their answers."""


class Writing:
    """A data set while it is written, and what it came to."""

    def __init__(self, dataset: Dataset, folder: Path, holdout: Holdout) -> None:
        self._dataset, self._holdout = dataset, holdout
        self.training = RowSet(folder, dataset)
        self.validation = RowSet(folder / VALIDATION, dataset) if dataset.validation else None
        self._samples = {Side.TRAINING: Samples(SAMPLES), Side.VALIDATION: Samples(SAMPLES)}
        self._too_long = Findings()
        self.left_out = 0
        """Training records that say the same as one of the validation split."""

    @property
    def sets(self) -> list[RowSet]:
        return [self.training, *([self.validation] if self.validation else [])]

    @property
    def samples(self) -> list[Example]:
        """A few examples, held-out ones first: the answers to those show what was learned and not what was read."""
        held_out, trained = self._samples[Side.VALIDATION].chosen(), self._samples[Side.TRAINING].chosen()
        return (held_out + trained)[:SAMPLES]

    def add_all(self, examples: Iterable[Example], encoder: Encoder, say: Say = lambda said: None) -> None:
        """Writes every example to the set it belongs to."""
        ahead: deque[tuple[Example, RowSet, Side]] = deque()  # of the documents that the encoder has read already

        def documents() -> Iterator[Document]:
            for example in examples:
                side = self._holdout.side(example.key, of_validation_file=example.of_validation_file)
                if side is Side.LEFT_OUT:
                    self.left_out += 1
                    continue
                held_out = side is Side.VALIDATION and self.validation
                ahead.append((example, held_out or self.training, side))
                yield example.document

        for count, record in enumerate(encoder.encode(documents()), start=1):
            self._add(*ahead.popleft(), record)
            if count % EVERY == 0:
                say(f"{count} records tokenized")

    def _add(self, example: Example, rows: RowSet, side: Side, record: Sequence[Tokens]) -> None:
        longest = max(len(tokens.ids) for tokens in record)
        refused = rows.fitting.refused
        if rows.add(record):
            self._samples[side].offer(example, cut=longest > self._dataset.sequence_length)
        elif rows.fitting.refused > refused:
            self._too_long.add_invalid(str(example.record.where), f"{longest} tokens", "too long")

    def close(self, seed: int) -> None:
        """Plans the rows. Raises StageError(DATA) where a record is too long and must not be, or a set is empty."""
        self._refuse_too_long()
        for rows, what, reason in (
            (self.training, "data set", "EmptyDataset"),
            (self.validation, "validation set", "EmptyValidation"),
        ):
            if rows and not rows.records:
                raise StageError(ExitCode.DATA, reason, f"The {what} is empty: {self._why_empty(rows)}.")
        for rows in self.sets:
            rows.close(seed)

    def _refuse_too_long(self) -> None:
        found, length = self._too_long, self._dataset.sequence_length
        listing = found.listing(IN_MESSAGE)
        if found.invalid:
            for line in found.first:
                print(f"too long: {line}", flush=True)
            raise StageError(
                ExitCode.DATA,
                "RecordTooLong",
                f"{found.invalid} records are longer than dataset.sequenceLength {length}: {listing}. "
                "Raise sequenceLength, or set dataset.tooLong to truncate, split or skip.",
            )

    def _why_empty(self, rows: RowSet) -> str:
        if rows.fitting.skipped:
            return (
                f"all {rows.fitting.skipped} records were skipped because they do not fit into dataset.sequenceLength "
                f"{self._dataset.sequence_length} with any token of their answer"
            )
        if rows is self.training:
            return "every record of it stands in the validation split as well"
        return "its files hold no record that can be used"
