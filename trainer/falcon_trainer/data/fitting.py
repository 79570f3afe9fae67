"""What becomes of a document that is longer than a row: `dataset.tooLong`, one record at a time, counted."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from falcon_trainer.config import Dataset
from falcon_trainer.data.concatenation import Stream, part
from falcon_trainer.data.tokenization import Tokens


class Fitting:
    """Makes documents of at most one row each.

    What has no trained token is left out: it would cost a forward pass and teach nothing.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._length, self._too_long = dataset.sequence_length, dataset.too_long
        self._stream = Stream(self._length) if dataset.packing == "concatenate" else None
        self.truncated = self.split = self.skipped = self.refused = 0
        """Records: cut at the end, cut into several documents, left out, and of these not taken by tooLong: fail."""

    def documents(self, record: Sequence[Tokens]) -> list[Tokens]:
        """The documents that are stored of one tokenized record; none where it is left out."""
        fitted = self._fitted([tokens for tokens in record if tokens.trained_count])
        self.skipped += not fitted
        return fitted

    def _fitted(self, record: list[Tokens]) -> list[Tokens]:
        if self._stream:
            return self._in_pieces(record, self._stream.cut)
        if all(len(tokens.ids) <= self._length for tokens in record):
            return record
        if self._too_long == "split":
            return self._in_pieces(record, self._pieces)
        if self._too_long == "truncate":
            cut = [tokens.cut(self._length) for tokens in record]
            taught = [tokens for tokens in cut if tokens.trained_count]
            self.truncated += bool(taught)
            return taught
        self.refused += self._too_long == "fail"
        return []

    def _in_pieces(self, record: list[Tokens], cut: Callable[[Tokens], Iterable[Tokens]]) -> list[Tokens]:
        """Pieces are kept whether or not they have trained tokens: no token of the record is lost."""
        pieces = [piece for tokens in record for piece in cut(tokens)]
        self.split += len(pieces) > len(record)
        return pieces

    def _pieces(self, tokens: Tokens) -> Iterator[Tokens]:
        for start in range(0, len(tokens.ids), self._length):
            yield part(tokens, start, min(start + self._length, len(tokens.ids)))
