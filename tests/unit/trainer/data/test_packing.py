"""Best-fit packing: nothing lost, nothing doubled, no row too long, and as full as plain best fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.data.packing import one_each, pack

CAPACITY = 64
lengths = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=120)


def loads_of_plain_best_fit(sizes: list[int]) -> list[int]:
    """Best-fit decreasing as a textbook has it: one document at a time, linear search."""
    free: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [space for space in free if space >= size]
        if fitting:
            free[free.index(min(fitting))] -= size
        else:
            free.append(CAPACITY - size)
    return sorted(CAPACITY - space for space in free)


@given(lengths, st.integers(0, 5))
def test_every_document_is_in_exactly_one_row_and_no_row_is_too_long(sizes: list[int], seed: int) -> None:
    plan = pack(np.array(sizes), CAPACITY, seed=seed)
    assert sorted(plan.documents.tolist()) == list(range(len(sizes)))
    loads = [sum(sizes[d] for d in plan.row(row)) for row in range(plan.rows)]
    assert all(0 < load <= CAPACITY for load in loads)


@given(lengths)
def test_rows_are_filled_as_by_plain_best_fit(sizes: list[int]) -> None:
    plan = pack(np.array(sizes), CAPACITY)
    assert sorted(sum(sizes[d] for d in plan.row(row)) for row in range(plan.rows)) == loads_of_plain_best_fit(sizes)


@given(lengths)
def test_the_same_seed_gives_the_same_plan(sizes: list[int]) -> None:
    first, second = pack(np.array(sizes), CAPACITY, seed=3), pack(np.array(sizes), CAPACITY, seed=3)
    assert np.array_equal(first.documents, second.documents)
    assert np.array_equal(first.offsets, second.offsets)


def test_a_hundred_thousand_documents_fill_their_rows_almost_whole() -> None:
    sizes = np.clip(np.random.default_rng(0).lognormal(5.2, 1, 100_000).astype(np.int64), 1, 2048)
    plan = pack(sizes, 2048)
    assert sizes.sum() / (plan.rows * 2048) > 0.999


@pytest.mark.parametrize("length", [0, CAPACITY + 1])
def test_a_length_that_fits_no_row_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="do not fit into rows"):
        pack(np.array([7, length]), CAPACITY)


@pytest.mark.parametrize("capacity", [4096, 8192])
def test_neighbours_of_equal_length_do_not_always_share_a_row(capacity: int) -> None:
    plan = pack(np.full(1000, capacity // 2), capacity)
    assert sum(abs(first - second) == 1 for first, second in map(plan.row, range(plan.rows))) < plan.rows / 4


def test_without_packing_each_document_has_its_row() -> None:
    plan = one_each(3)
    assert [plan.row(row).tolist() for row in range(plan.rows)] == [[0], [1], [2]]
