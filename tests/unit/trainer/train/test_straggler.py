"""Which rank is slow, how often that is looked for, and what is said of it."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_trainer.train.probe import MatrixProbe, place
from falcon_trainer.train.straggler import PERIOD, STEPS_APART, Slow, Streaks, notice, remark, steps_until_next

FINE, LATE = (1.0, 1.1, 0.9, 1.0), (1.0, 1.1, 0.9, 2.3)


@pytest.mark.parametrize(
    ("looks", "slow"),
    [
        pytest.param([FINE] * 9, [], id="none"),
        pytest.param([LATE] * 2, [], id="twice may be chance"),
        pytest.param([LATE] * 3, [3], id="three times is not"),
        pytest.param([LATE, LATE, FINE, LATE, LATE], [], id="a good look begins the count anew"),
        pytest.param([LATE, LATE, LATE, FINE], [], id="a rank that recovered is slow no more"),
        pytest.param([(1.0, 1.0, 1.0, 1.99)] * 5, [], id="less than twice the median is usual"),
        pytest.param([(1.0, 1.0, 2.5, 2.6, 1.0)] * 3, [3, 2], id="two, the slowest first"),
        pytest.param([(1.0, 1.0, 9.0), (1.0, 9.0, 1.0), (9.0, 1.0, 1.0)], [], id="each one once"),
        pytest.param([(1.0, 5.0, 5.1)] * 3, [], id="most are slow: that is usual, then"),
        pytest.param([(1.0, 2.1)] * 3, [1], id="two ranks: measured by the faster one"),
        pytest.param([(1.0, 1.9)] * 3, [], id="two ranks that differ little"),
        pytest.param([(1.0,)] * 3, [], id="a rank alone"),
    ],
)
def test_a_rank_is_slow_after_three_looks_in_a_row(looks: Sequence[Sequence[float]], slow: list[int]) -> None:
    streaks = Streaks()
    found = [streaks.take(look) for look in looks]
    assert [each.rank for each in found[-1]] == slow


@settings(deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=16), st.sampled_from([0.25, 1, 1024]))
def test_never_most_of_the_ranks_are_slow_and_the_unit_does_not_matter(took: list[int], unit: float) -> None:
    one, other = Streaks(), Streaks()
    for _ in range(3):
        slow, scaled = one.take(took), other.take([seconds * unit for seconds in took])
    assert len(slow) <= len(took) / 2
    assert slow == scaled


@pytest.mark.parametrize(
    ("steps", "seconds", "expected"),
    [
        pytest.param(10, 10.0, 30, id="steps of a second"),
        pytest.param(30, 30.0, 30, id="it stays so"),
        pytest.param(10, 0.5, 600, id="short steps"),
        pytest.param(10, 900.0, STEPS_APART, id="steps of minutes"),
        pytest.param(10, 0.0, 300_000, id="a clock that stood still"),
    ],
)
def test_looks_are_about_half_a_minute_apart_but_at_least_ten_steps(steps: int, seconds: float, expected: int) -> None:
    assert PERIOD == 30.0
    assert steps_until_next(steps, seconds) == expected


def test_the_status_names_the_slowest_and_counts_the_others() -> None:
    places = ["rank 0", "rank 1 (node n2, pod tiny-train-1-1)", "rank 2"]
    assert remark([], places) is None
    one = "rank 1 (node n2, pod tiny-train-1-1) is slow: it computes 4.1 times as long as usual"
    assert remark([Slow(1, 4.14)], places) == one
    assert remark([Slow(1, 4.14), Slow(2, 3.0), Slow(0, 2.5)], places) == f"{one}; so are 2 other ranks"
    assert remark([Slow(1, 4.14), Slow(2, 3.0)], places) == f"{one}; so is another rank"
    assert len(remark([Slow(0, 3.0)], ["x" * 600]) or "") == 256


def test_a_notice_says_where_to_look() -> None:
    told = notice(Slow(0, 3.0), ["rank 0 (node n1)"])
    assert told.reason == "SlowRank"
    assert told.message.startswith("rank 0 (node n1) takes 3.0 times as long as usual")
    assert len(notice(Slow(0, 3.0), ["x" * 600]).message) == 512


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        pytest.param({"FALCON_NODE": "n2", "POD_NAME": "p-1"}, "rank 5 (node n2, pod p-1)", id="in a pod"),
        pytest.param({"POD_NAME": "p-1"}, "rank 5 (pod p-1)", id="of an older operator"),
        pytest.param({}, "rank 5", id="by hand"),
    ],
)
def test_a_rank_is_named_by_where_it_runs(environment: dict[str, str], text: str) -> None:
    assert place(5, environment) == text


def test_the_probe_measures_a_moment_and_draws_no_random_number() -> None:
    import torch

    before = torch.get_rng_state()
    assert 0 < MatrixProbe(gpu=False)() < 60
    assert torch.equal(torch.get_rng_state(), before)
