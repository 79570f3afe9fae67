"""Curves fit to look at: nothing that stands out is lost, and a mean does not lag behind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.report.series import SHORTEST, smoothed, span, thinned

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400)


@given(values, st.integers(2, 60))
def test_a_thinned_curve_keeps_extremes_and_order_and_makes_nothing_up(numbers: list[float], points: int) -> None:
    y = np.array(numbers)
    x = np.arange(len(y), dtype=np.float64)
    kept_x, kept_y = thinned(x, y, points)
    assert len(kept_x) <= max(points, 2)
    assert (kept_y.min(), kept_y.max()) == (y.min(), y.max())
    assert (np.diff(kept_x) > 0).all()
    assert all(y[int(place)] == value for place, value in zip(kept_x, kept_y, strict=True))


def test_one_spike_in_a_hundred_thousand_steps_is_drawn() -> None:
    y = np.ones(100_000)
    y[77_777] = 50
    x, kept = thinned(np.arange(100_000.0), y)
    assert x[kept == 50].tolist() == [77_777]


@given(values, st.integers(0, 30).map(lambda half: 2 * half + 1))
def test_a_mean_stays_within_the_values_around_it(numbers: list[float], width: int) -> None:
    y = np.array(numbers)
    mean = smoothed(y, width)
    for place in range(len(y)):
        around = y[max(0, place - width // 2) : place + width // 2 + 1]
        assert mean[place] == pytest.approx(around.mean(), abs=1e-5)


def test_the_mean_of_a_straight_line_is_that_line_away_from_its_ends() -> None:
    line = np.linspace(5, 1, 101)
    assert smoothed(line, 11)[5:-5] == pytest.approx(line[5:-5])


@pytest.mark.parametrize(("length", "expected"), [(1, SHORTEST), (74, SHORTEST), (400, 11), (100_000, 2501)])
def test_the_mean_spans_a_fortieth_of_the_curve(length: int, expected: int) -> None:
    assert span(length) == expected
