"""The figures that the report draws."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.data.statistics import BINS, lengths


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=200), st.integers(16, 4096))
def test_the_histogram_counts_every_record_once_in_its_bin(sizes: list[int], capacity: int) -> None:
    told: dict[str, Any] = lengths(np.array(sizes), capacity)
    edges, counts = told["edges"], told["counts"]
    assert len(counts) == len(edges) - 1 <= BINS + 1
    assert edges == sorted(set(edges))
    for index, count in enumerate(counts):
        assert count == sum(edges[index] < size <= edges[index + 1] for size in sizes)
    assert sum(counts) == len(sizes)


def test_what_is_longer_than_a_row_has_a_bin_of_its_own() -> None:
    told: dict[str, Any] = lengths(np.array([10, 64, 64, 65, 900]), 64)
    assert (told["edges"][-2:], told["counts"][-1]) == ([64, 900], 2)


def test_quantiles_are_lengths_that_occur() -> None:
    told = lengths(np.arange(1, 101), 128)
    assert told["quantiles"] == {"0.01": 1, "0.05": 5, "0.25": 25, "0.5": 50, "0.75": 75, "0.95": 95, "0.99": 99}
