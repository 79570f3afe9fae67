"""Concatenation: no token of the stream is lost, rows are full, and parts are documents of their own."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_trainer.data.concatenation import Stream, part
from falcon_trainer.data.packing import concatenate
from falcon_trainer.data.store import IGNORED, DocumentWriter, PackedRows, write_plan
from falcon_trainer.data.tokenization import Tokens

CAPACITY = 16


@st.composite
def documents(draw: st.DrawFn) -> list[Tokens]:
    """Documents of up to three turns and any length; token numbers are unique over all documents."""
    made, first = [], 1
    for sizes in draw(st.lists(st.lists(st.integers(1, 3 * CAPACITY), min_size=1, max_size=6), min_size=1)):
        edges = [0, *np.cumsum(sizes).tolist()]
        answers = [[max(start, 1), end] for start, end in list(pairwise(edges))[1::2]]
        made.append(Tokens(list(range(first, first + edges[-1])), [edge for span in answers for edge in span]))
        first += edges[-1]
    return made


def trained_in(tokens: Tokens) -> list[int]:
    spans = zip(tokens.trained[::2], tokens.trained[1::2], strict=True)
    return [i for start, end in spans for i in tokens.ids[start:end]]


def parts_of(made: list[Tokens]) -> list[Tokens]:
    stream = Stream(CAPACITY)
    return [piece for tokens in made for piece in stream.cut(tokens)]


def rows_of(made: list[Tokens]) -> list[dict[str, np.ndarray]]:
    """As prepare writes them and training reads them."""
    parts = parts_of(made)
    with TemporaryDirectory() as folder:
        writer = DocumentWriter(Path(folder))
        for piece in parts:
            writer.add(piece)
        writer.close()
        write_plan(Path(folder), concatenate(np.array([len(piece.ids) for piece in parts]), CAPACITY))
        packed = PackedRows(Path(folder))
        return [packed.row(index) for index in range(len(packed))]


@settings(deadline=None)
@given(documents())
def test_the_rows_are_the_stream_of_all_tokens_and_only_the_last_is_short(made: list[Tokens]) -> None:
    rows = rows_of(made)
    assert np.concatenate([row["input_ids"] for row in rows]).tolist() == [i for tokens in made for i in tokens.ids]
    assert all(len(row["input_ids"]) == CAPACITY for row in rows[:-1])
    assert 0 < len(rows[-1]["input_ids"]) <= CAPACITY


@settings(deadline=None)
@given(documents())
def test_what_is_trained_in_the_document_is_trained_in_its_parts_but_for_tokens_that_begin_a_row(
    made: list[Tokens],
) -> None:
    trained = {i for tokens in made for i in trained_in(tokens)}
    rows = rows_of(made)
    first = {int(row["input_ids"][0]) for row in rows}
    labels = np.concatenate([row["labels"] for row in rows])
    assert sorted(labels[labels != IGNORED].tolist()) == sorted(trained - first)
    assert sum(piece.trained_count for piece in parts_of(made)) == len(trained - first)


@settings(deadline=None)
@given(documents())
def test_positions_begin_anew_at_each_document_and_at_each_cut(made: list[Tokens]) -> None:
    starts = {tokens.ids[0] for tokens in made}
    for row in rows_of(made):
        begins = [place for place, i in enumerate(row["input_ids"]) if place == 0 or int(i) in starts]
        sizes = np.diff([*begins, len(row["input_ids"])])
        assert row["position_ids"].tolist() == [place for size in sizes for place in range(size)]


def test_a_document_with_room_left_is_not_copied() -> None:
    tokens = Tokens(list(range(5)), [2, 5])
    (piece,) = Stream(CAPACITY).cut(tokens)
    assert piece is tokens


@pytest.mark.parametrize(
    ("start", "end", "spans"),
    [
        pytest.param(0, 4, [1, 2], id="a cut after a span keeps it"),
        pytest.param(0, 6, [1, 2, 5, 6], id="a cut within a span ends it there"),
        pytest.param(4, 9, [1, 4], id="a span after the cut moves to the front"),
        pytest.param(6, 9, [1, 2], id="the first token of a part is not trained"),
        pytest.param(7, 9, [], id="a part whose only trained token is its first has none"),
        pytest.param(8, 9, [], id="a part behind all spans has none"),
    ],
)
def test_trained_spans_at_a_cut(start: int, end: int, spans: list[int]) -> None:
    assert part(Tokens(list(range(9)), [1, 2, 5, 8]), start, end) == Tokens(list(range(start, end)), spans)


def test_a_document_that_crosses_a_border_is_refused() -> None:
    with pytest.raises(ValueError, match="document 1 crosses the border of a row of 16 tokens"):
        concatenate(np.array([10, 7]), CAPACITY)


def test_no_documents_give_no_rows() -> None:
    assert concatenate(np.array([], np.int64), CAPACITY).rows == 0
