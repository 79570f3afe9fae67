"""Validation records: chosen by what they say and the seed, never among the trained ones."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.data.formats import Document, Segment
from falcon_trainer.data.holdout import Holdout, Keys, Side, duplicates, key_of
from falcon_trainer.outcome import ExitCode, StageError

said = st.lists(st.tuples(st.text(max_size=4), st.booleans()), min_size=1, max_size=3)
documents = said.map(lambda parts: tuple(Segment(text, answer=answer) for text, answer in parts))
fractions = st.floats(0.01, 0.99)


def asked(number: int) -> Document:
    return Segment(f"question {number}", answer=False), Segment("answer", answer=True)


def keys_of(made: list[Document], seed: int = 42) -> Keys:
    return np.array([key_of(document, seed) for document in made], np.uint64)


@given(st.lists(documents, max_size=20), st.integers(0, 2**31 - 1))
def test_two_documents_have_one_key_exactly_where_they_say_the_same(made: list[Document], seed: int) -> None:
    assert len(set(keys_of(made, seed).tolist())) == len(set(made))
    assert duplicates(keys_of(made, seed)) == len(made) - len(set(made))


@given(st.lists(documents, min_size=2, max_size=30), fractions, st.randoms())
def test_a_fraction_holds_out_its_share_of_different_records_whatever_their_order(
    made: list[Document], fraction: float, shuffler: random.Random
) -> None:
    different = len(set(made))
    if different < 2:
        with pytest.raises(StageError, match="cannot hold out"):
            Holdout.of_fraction(keys_of(made), fraction)
        return
    choice = Holdout.of_fraction(keys_of(made), fraction)
    shuffled = shuffler.sample(made, len(made))
    assert choice == Holdout.of_fraction(keys_of(shuffled), fraction)
    held_out = {each for each in made if choice.side(key_of(each, 42), of_validation_file=False) is Side.VALIDATION}
    assert len(held_out) == min(max(round(fraction * different), 1), different - 1)


def test_another_seed_holds_out_others() -> None:
    made = [asked(number) for number in range(200)]
    chosen = []
    for seed in (1, 2):
        choice = Holdout.of_fraction(keys_of(made, seed), 0.5)
        sides = [choice.side(key_of(each, seed), of_validation_file=False) for each in made]
        chosen.append({number for number, side in enumerate(sides) if side is Side.VALIDATION})
    assert len(chosen[0]) == len(chosen[1]) == 100
    assert 20 < len(chosen[0] & chosen[1]) < 80


def test_the_records_of_a_validation_split_are_held_out_and_their_twins_left_out() -> None:
    choice = Holdout.of_split([key_of(asked(number), 42) for number in range(3)])
    assert choice.side(key_of(asked(1), 42), of_validation_file=True) is Side.VALIDATION
    assert choice.side(key_of(asked(1), 42), of_validation_file=False) is Side.LEFT_OUT
    assert choice.side(key_of(asked(7), 42), of_validation_file=False) is Side.TRAINING


def test_without_validation_every_record_is_trained_on() -> None:
    assert {Holdout().side(key, of_validation_file=False) for key in (0, 1, 2**64 - 1)} == {Side.TRAINING}


@pytest.mark.parametrize("made", [[], [asked(1)], [asked(1)] * 9], ids=["none", "one", "one, nine times"])
def test_a_part_of_less_than_two_different_records_cannot_be_held_out(made: list[Document]) -> None:
    with pytest.raises(StageError, match=r"fraction 0.2 cannot hold out a part of [01] different") as caught:
        Holdout.of_fraction(keys_of(made), 0.2)
    assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "EmptyValidation")
