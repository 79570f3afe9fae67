"""What a campaign of random faults promises before the first one strikes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.plan import Fault, campaign

STEPS, RANKS = 40, 2
SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.integers(1, 12))
def test_a_seed_says_all(seed: int, runs: int) -> None:
    first, second = (campaign(seed, runs=runs, steps=STEPS, ranks=RANKS) for _ in range(2))
    assert first == second


@given(SEEDS, st.integers(1, 12), st.integers(1, 4))
def test_faults_strike_in_order_and_before_the_last_step(seed: int, runs: int, strikes: int) -> None:
    planned = campaign(seed, runs=runs, steps=STEPS, ranks=RANKS, strikes=strikes)
    assert len(planned) == runs
    for each in planned:
        steps = [strike.step for strike in each]
        assert steps == sorted(set(steps))
        assert len(steps) == strikes
        assert all(1 <= strike.step < STEPS and 0 <= strike.rank < RANKS for strike in each)


@given(SEEDS, st.integers(1, 12))
def test_every_kind_of_fault_comes_as_often_as_any_other(seed: int, runs: int) -> None:
    counts = Counter(
        strike.fault for each in campaign(seed, runs=runs, steps=STEPS, ranks=RANKS, strikes=2) for strike in each
    )
    assert max(counts[fault] for fault in Fault) - min(counts[fault] for fault in Fault) <= 1


def test_other_seeds_are_other_campaigns() -> None:
    assert len({tuple(campaign(seed, runs=3, steps=STEPS, ranks=RANKS)) for seed in range(20)}) == 20


def test_more_faults_than_steps_cannot_be_planned() -> None:
    with pytest.raises(ValueError, match="larger than population"):
        campaign(1, runs=1, steps=3, ranks=1, strikes=3)
