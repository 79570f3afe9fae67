"""From examples to rows on disk: every record in exactly one set, every token in exactly one row."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_trainer.config import Dataset
from falcon_trainer.data.contents import VALIDATION
from falcon_trainer.data.formats import Document, Segment
from falcon_trainer.data.holdout import Holdout, key_of
from falcon_trainer.data.records import Example
from falcon_trainer.data.sources import Record, Where
from falcon_trainer.data.store import PackedRows
from falcon_trainer.data.tokenization import Encoder
from falcon_trainer.data.writing import Writing
from falcon_trainer.outcome import StageError
from tests.unit.trainer.workshop import tokenizer

SEED = 7
LENGTH = 16


def example(number: int, document: Document, *, of_validation_file: bool = False) -> Example:
    record = Record(Where("records.jsonl", number + 1), {})
    return Example(record, document, key_of(document, SEED), of_validation_file)


@st.composite
def documents(draw: st.DrawFn) -> list[Document]:
    """Up to thirty records of one or two turns; most are shorter than a row, some are several rows long."""
    words = st.lists(st.sampled_from(["rank", "gang", "shard", "ünï", "\n\n", "  "]), max_size=14).map(" ".join)
    made = []
    for turns in draw(st.lists(st.lists(st.tuples(words, words), min_size=1, max_size=2), min_size=3, max_size=30)):
        pairs = ((Segment(f"Q: {a}\n", answer=False), Segment(f"A{b}", answer=True)) for a, b in turns)
        made.append(tuple(segment for pair in pairs for segment in pair))
    return made


def dataset(**fields: Any) -> Dataset:
    return Dataset.model_validate({"sources": [{"uri": "pvc://data/x.jsonl"}], "sequenceLength": LENGTH, **fields})


def write(asked: Dataset, folder: Path, examples: list[Example], holdout: Holdout) -> Writing:
    written = Writing(asked, folder, holdout)
    written.add_all(examples, Encoder(tokenizer(), asked.train_on))
    written.close(SEED)
    return written


def tokens_in(folder: Path) -> Counter[int]:
    packed = PackedRows(folder)
    assert packed.lengths.max() <= LENGTH
    return Counter(int(token) for row in range(len(packed)) for token in packed.row(row)["input_ids"])


def tokens_of(made: list[Document], asked: Dataset) -> Counter[int]:
    encoded = Encoder(tokenizer(), asked.train_on).encode(made)
    return Counter(token for record in encoded for tokens in record for token in tokens.ids)


def keys_of(examples: list[Example]) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    return np.array([each.key for each in examples], np.uint64)


WHOLE = [
    {"packing": packing, "tooLong": "split", "trainOn": train_on}
    for packing in ("best-fit", "concatenate", "none")
    for train_on in ("completion", "all")
]


@settings(deadline=None, max_examples=40)
@given(documents(), st.sampled_from(WHOLE))
def test_no_token_is_lost_or_doubled(made: list[Document], fields: dict[str, str]) -> None:
    asked = dataset(**fields)
    with TemporaryDirectory() as folder:
        written = write(asked, Path(folder), [example(*each) for each in enumerate(made)], Holdout())
        assert tokens_in(Path(folder)) == tokens_of(made, asked)
    assert written.training.records == len(made)


@settings(deadline=None, max_examples=40)
@given(documents(), st.sampled_from(WHOLE), st.floats(0.05, 0.9))
def test_a_record_is_trained_on_or_held_out_and_never_both(
    made: list[Document], fields: dict[str, str], fraction: float
) -> None:
    different = [*dict.fromkeys(made)]
    if len(different) < 2:
        return
    asked = dataset(**fields, validation={"fraction": f"{fraction:.3f}"})
    examples = [example(*each) for each in enumerate(made)]
    choice = Holdout.of_fraction(keys_of(examples), fraction)
    held_out = [each.document for each in examples if each.key <= choice.ceiling]
    trained = [each.document for each in examples if each.key > choice.ceiling]
    with TemporaryDirectory() as folder:
        written = write(asked, Path(folder), examples, choice)
        assert tokens_in(Path(folder)) == tokens_of(trained, asked)
        assert tokens_in(Path(folder) / VALIDATION) == tokens_of(held_out, asked)
    assert not set(trained) & set(held_out)
    assert written.validation
    assert (written.training.records, written.validation.records) == (len(trained), len(held_out))


def short(number: int) -> Document:
    return Segment(f"{number}?", answer=False), Segment("yes", answer=True)


def test_what_the_validation_files_hold_is_left_out_of_the_training_ones(tmp_path: Path) -> None:
    training = [example(number, short(number)) for number in range(6)]
    held_out = [example(number, short(number), of_validation_file=True) for number in (2, 9)]
    choice = Holdout.of_split([each.key for each in held_out])
    written = write(dataset(validation={"split": "test"}), tmp_path, training + held_out, choice)
    assert written.validation
    assert (written.training.records, written.validation.records, written.left_out) == (5, 2, 1)


def test_samples_are_held_out_records_before_trained_ones_and_the_same_in_any_order(tmp_path: Path) -> None:
    examples = [example(number, short(number)) for number in range(20)]
    choice = Holdout.of_fraction(keys_of(examples), 0.1)
    asked = dataset(validation={"fraction": "0.1"})
    forward, backward = tmp_path / "forward", tmp_path / "backward"
    for folder in (forward, backward):
        folder.mkdir()
    chosen = write(asked, forward, examples, choice).samples
    assert [each.key <= choice.ceiling for each in chosen] == [True, True, False]
    assert write(asked, backward, examples[::-1], choice).samples == chosen


def test_samples_are_different_records_that_fit_where_there_are_such(tmp_path: Path) -> None:
    long = [(Segment("?", answer=False), Segment(f"{number} " * 40, answer=True)) for number in range(9)]
    examples = [example(*each) for each in enumerate([*long, short(1), short(1), short(2)])]
    chosen = write(dataset(), tmp_path, examples, Holdout()).samples
    assert {each.document for each in chosen[:2]} == {short(1), short(2)}
    assert chosen[2].document in long


def refusal(folder: Path, examples: list[Example], choice: Holdout, **fields: Any) -> StageError:
    with pytest.raises(StageError) as caught:
        write(dataset(**fields), folder, examples, choice)
    return caught.value


def test_a_validation_set_of_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    held_out = example(0, (Segment("word " * 40, answer=False), Segment("x", answer=True)), of_validation_file=True)
    choice = Holdout.of_split([held_out.key])
    error = refusal(tmp_path, [example(1, short(1)), held_out], choice, validation={"split": "test"})
    assert error.reason == "EmptyValidation"
    assert "all 1 records were skipped because they do not fit" in error.message


def test_a_training_set_that_is_the_validation_set_is_refused(tmp_path: Path) -> None:
    both = [example(1, short(1)), example(1, short(1), of_validation_file=True)]
    error = refusal(tmp_path, both, Holdout.of_split([both[0].key]), validation={"split": "test"})
    assert error.reason == "EmptyDataset"
    assert "every record of it stands in the validation split as well" in error.message


def test_records_that_are_too_long_are_listed_with_their_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = (Segment("?", answer=False), Segment("words " * 40, answer=True))
    examples = [example(number, long) for number in range(25)] + [example(25, short(1))]
    error = refusal(tmp_path, examples, Holdout(), tooLong="fail")
    assert error.reason == "RecordTooLong"
    assert error.message.startswith("25 records are longer than dataset.sequenceLength 16: records.jsonl line 1: ")
    assert "; and 20 more. Raise sequenceLength, or set dataset.tooLong to truncate, split or skip." in error.message
    assert capsys.readouterr().out.count("too long: records.jsonl line ") == 20
