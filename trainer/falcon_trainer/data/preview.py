"""A look at a prepared data set: the text of a few documents, their tokens, what is trained of them, and packed rows.

Everything is read back from the folder, so what is shown is what training reads and not what was meant to be written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from falcon_trainer.config import Dataset
from falcon_trainer.data.contents import TOKENIZER
from falcon_trainer.data.findings import printable
from falcon_trainer.data.paint import Paint
from falcon_trainer.data.store import PackedRows

ROWS = 5
"""Rows that are drawn."""


@dataclass(frozen=True)
class Extent:
    """How much is shown of a document: characters of its text, and tokens."""

    characters: int
    tokens: int


WHOLE = Extent(characters=20_000, tokens=4_000)
"""On request; a document of a hundred thousand tokens is not for reading."""
SHORT = Extent(characters=600, tokens=24)
"""In a log."""


@dataclass(frozen=True)
class _Piece:
    """Tokens in a row that are all trained, or all not."""

    ids: list[int]
    trained: bool


def describe(
    folder: Path, dataset: Dataset, count: int, *, seed: int, paint: Paint, extent: Extent = WHOLE
) -> Iterator[str]:
    """The lines of the look: `count` documents and a few rows, chosen by the seed."""
    from tokenizers import Tokenizer

    tokenizer, rows = Tokenizer.from_file(str(folder / TOKENIZER)), PackedRows(folder)
    documents = len(rows.plan.documents)
    chosen = np.random.default_rng(seed).choice(documents, min(count, documents), replace=False)
    for number, document in enumerate(chosen.tolist(), start=1):
        title = f"sample {number} of {len(chosen)}: document {document} of {documents}"
        yield from _document(title, _pieces(rows, document), tokenizer, paint, extent)
    yield from _rows(rows, dataset, seed, paint)


def _pieces(rows: PackedRows, index: int) -> list[_Piece]:
    ids, spans = rows.document(index)
    trained = np.zeros(len(ids), bool)
    for start, end in spans.reshape(-1, 2):
        trained[start:end] = True
    marked = zip(ids.tolist(), trained.tolist(), strict=True)
    return [_Piece([id_ for id_, _ in run], key) for key, run in groupby(marked, key=lambda pair: pair[1])]


def _document(title: str, pieces: list[_Piece], tokenizer: Any, paint: Paint, extent: Extent) -> Iterator[str]:
    total = sum(len(piece.ids) for piece in pieces)
    trained = sum(len(piece.ids) for piece in pieces if piece.trained)
    yield paint.heading(f"{title}, {total} tokens, {trained} trained")
    yield _text(pieces, tokenizer, paint, extent.characters)
    words = [(_word(tokenizer, id_), piece.trained) for piece in _cut(pieces, extent.tokens) for id_ in piece.ids]
    more = f"  … and {total - len(words)} more" if total > len(words) else ""
    yield f"tokens:\n{paint.words(words)}{more}"


def _text(pieces: list[_Piece], tokenizer: Any, paint: Paint, limit: int) -> str:
    shown = []
    for piece in pieces:
        text = _clean(tokenizer.decode(piece.ids, skip_special_tokens=False))
        cut = text if len(text) <= limit else text[:limit] + "…"
        shown.append(paint.trained(cut) if piece.trained else cut)
        limit -= len(text)
        if limit <= 0:
            break
    return "".join(shown)


def _cut(pieces: list[_Piece], limit: int) -> Iterator[_Piece]:
    for piece in pieces:
        yield _Piece(piece.ids[: max(limit, 0)], piece.trained)
        limit -= len(piece.ids)


def _word(tokenizer: Any, id_: int) -> str:
    """A token as `number'text'`; of a character that is split over tokens, each has a part that is no text."""
    return f"{id_}'{printable(tokenizer.decode([id_], skip_special_tokens=False))}'"


def _clean(text: str) -> str:
    """Text without what would move a terminal's cursor or change its colours; lines stay lines."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)


def _rows(rows: PackedRows, dataset: Dataset, seed: int, paint: Paint) -> Iterator[str]:
    capacity = dataset.sequence_length
    fill = int(rows.lengths.sum()) / (len(rows) * capacity)
    yield paint.heading(f"{len(rows)} rows of {capacity} tokens, packing {dataset.packing}, {fill:.1%} filled")
    chosen = np.sort(np.random.default_rng(seed).choice(len(rows), min(ROWS, len(rows)), replace=False))
    for index in chosen.tolist():
        lengths = [len(rows.document(int(document))[0]) for document in rows.plan.row(index)]
        documents = "1 document" if len(lengths) == 1 else f"{len(lengths)} documents"
        told = f"{sum(lengths)} tokens ({sum(lengths) / capacity:.0%}), {documents}"
        yield f"row {index:<7} {paint.bar(lengths, capacity)} {told}"
