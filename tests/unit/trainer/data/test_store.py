"""Rows as the trainer reads them: every token once, borders by position, labels on trained tokens alone."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_trainer.data import store
from falcon_trainer.data.packing import pack
from falcon_trainer.data.store import IGNORED, DocumentWriter, PackedRows, write_plan
from falcon_trainer.data.tokenization import Tokens

LENGTH = 24


@st.composite
def documents(draw: st.DrawFn) -> list[Tokens]:
    """Documents of a prompt and an answer; token numbers are unique over all documents, so each can be followed.

    Some sets leave, sooner or later, the numbers that fit into two bytes.
    """
    sizes = draw(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=20))
    made, first = [], draw(st.one_of(st.just(1), st.integers(65_400, 65_540)))
    for prompt, answer in sizes:
        end = prompt + answer
        made.append(Tokens(list(range(first, first + end)), [prompt, end]))
        first += end
    return made


def stored(folder: Path, made: list[Tokens]) -> PackedRows:
    writer = DocumentWriter(folder)
    for tokens in made:
        writer.add(tokens)
    writer.close()
    write_plan(folder, pack(np.array([len(tokens.ids) for tokens in made]), LENGTH))
    return PackedRows(folder)


@settings(deadline=None)
@given(documents(), st.integers(1, 7))
def test_no_token_is_lost_or_doubled_and_no_prompt_token_has_a_label(made: list[Tokens], lines: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "LINES", lines)  # several record batches, as a large data set has
        packed = stored(Path(folder), made)
        rows = [packed.row(index) for index in range(len(packed))]
    real = [row["input_ids"] for row in rows]
    assert sorted(np.concatenate(real)) == sorted(token for tokens in made for token in tokens.ids)
    assert packed.lengths.tolist() == [len(tokens) for tokens in real]
    assert max(packed.lengths) <= LENGTH
    labelled = [row["labels"][row["labels"] != IGNORED] for row in rows]
    trained = sorted(token for tokens in made for token in tokens.ids[tokens.trained[0] : tokens.trained[1]])
    assert sorted(np.concatenate(labelled)) == trained
    for row in rows:
        assert all(label in (IGNORED, token) for label, token in zip(row["labels"], row["input_ids"], strict=True))


@settings(deadline=None)
@given(documents())
def test_positions_begin_anew_in_each_document(made: list[Tokens]) -> None:
    with TemporaryDirectory() as folder:
        packed = stored(Path(folder), made)
        for index in range(len(packed)):
            row = packed.row(index)
            sizes = [len(made[document].ids) for document in packed.plan.row(index)]
            assert row["position_ids"].tolist() == [place for size in sizes for place in range(size)]


@pytest.mark.parametrize(
    ("largest", "bytes_each"),
    [
        pytest.param(65_023, 2, id="Falcon's tokens take two bytes each"),
        pytest.param(65_536, 4, id="a number beyond two bytes makes all of them four bytes wide"),
    ],
)
def test_the_width_of_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, bytes_each: int) -> None:
    monkeypatch.setattr(store, "LINES", 1)
    packed = stored(tmp_path, [Tokens([5, 6], [1, 2]), Tokens([largest, 7], [1, 2])])
    assert [packed.document(index)[0].itemsize for index in range(2)] == [bytes_each, bytes_each]
    assert [packed.document(index)[0].tolist() for index in range(2)] == [[5, 6], [largest, 7]]
    assert {file.name for file in tmp_path.iterdir()} == {store.DOCUMENTS, store.ROWS}
