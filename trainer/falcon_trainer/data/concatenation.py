"""Documents one after the other, cut wherever a row is full, as the original recipe packs them.

Every row but the last is full, at the price of documents torn apart: the second part of an answer is learned without
its prompt. Unlike the recipe's, the tail is kept, and the parts in one row never see each other.
"""

from collections.abc import Iterator

from falcon_trainer.data.tokenization import Tokens


class Stream:
    """The stream of all tokens, in the order of the records: hands out documents in parts that fit its rows.

    The parts are written as documents of their own, and `packing.concatenate` of their lengths gives the rows.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = self._room = capacity

    def cut(self, tokens: Tokens) -> Iterator[Tokens]:
        """The document in order, whole where the current row has room for it."""
        start = 0
        while start < len(tokens.ids):
            end = min(start + self._room, len(tokens.ids))
            self._room = self._room - (end - start) or self._capacity
            yield part(tokens, start, end)
            start = end


def part(tokens: Tokens, start: int, end: int) -> Tokens:
    """Tokens [start, end) as a document of its own.

    Its first token is never trained: what came before it is in another document, so nothing can predict it.
    """
    if (start, end) == (0, len(tokens.ids)):
        return tokens
    spans = zip(tokens.trained[::2], tokens.trained[1::2], strict=True)
    moved = [(max(first - start, 1), min(last, end) - start) for first, last in spans]
    return Tokens(tokens.ids[start:end], [edge for span in moved if span[0] < span[1] for edge in span])
