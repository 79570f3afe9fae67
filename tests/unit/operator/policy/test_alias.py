"""Who answers to a name that several runs share."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_operator.policy.alias import Claimant, holder

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def claimant(name: str, day: int = 0, *, serving: bool = True, suspended: bool = False) -> Claimant:
    created = BEGIN + timedelta(days=day)
    return Claimant(name=name, uid=f"uid-{name}", created=created, serving=serving, suspended=suspended)


OLD, NEW = claimant("old", 1), claimant("new", 2)
DOWN = claimant("new", 2, serving=False)
ASLEEP = claimant("new", 2, serving=False, suspended=True)

CASES: dict[str, tuple[list[Claimant], str | None, str | None]] = {
    "nobody claims it": ([], None, None),
    "a holder that is gone leaves it to nobody": ([], "gone", None),
    "the first one that answers takes it": ([OLD], None, "old"),
    "the newest one that answers takes it": ([OLD, NEW], "old", "new"),
    "the newest one is not outdone by an older one": ([OLD, NEW], "new", "new"),
    "of two of one second the last name": ([claimant("a"), claimant("b")], "a", "b"),
    "one that does not answer never takes it": ([OLD, DOWN], "old", "old"),
    "nor does it where nobody answers": ([DOWN], None, None),
    "except from a holder that is gone": ([DOWN], "gone", "new"),
    "then the newest one that is not suspended": ([claimant("old", 1, serving=False), ASLEEP], "gone", "old"),
    "a holder that is gone leaves it to nobody that is suspended": ([ASLEEP], "gone", None),
    "a holder that does not answer keeps it": ([OLD, DOWN], "new", "new"),
    "a newer one takes it from a holder that does not answer": ([claimant("old", 1, serving=False), NEW], "old", "new"),
    "a suspended holder leaves it to an older one": ([OLD, ASLEEP], "new", "old"),
    "a suspended holder keeps it where nobody answers": ([ASLEEP], "new", "new"),
    "one that is being suspended does not take it": ([OLD, claimant("new", 2, suspended=True)], "old", "old"),
    "a holder that is gone leaves it to the newest that answers": ([OLD, NEW, claimant("x", 0)], "gone", "new"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_holder(name: str) -> None:
    claimants, current, expected = CASES[name]
    found = holder(claimants, current)
    assert (found.name if found else None) == expected


crowds = st.lists(
    st.builds(claimant, st.sampled_from("abcdef"), st.integers(0, 3), serving=st.booleans(), suspended=st.booleans()),
    unique_by=lambda each: each.name,
)
currents = st.none() | st.sampled_from("abcdefg")


@given(crowds, currents, st.randoms(use_true_random=False))
def test_whoever_elects_elects_the_same(crowd: list[Claimant], current: str | None, dice: Random) -> None:
    shuffled = crowd.copy()
    dice.shuffle(shuffled)
    found = holder(crowd, current)
    assert holder(shuffled, current) == found
    assert holder(crowd, found.name if found else None) == found, "the election would never come to rest"


@given(crowds, currents)
def test_where_one_answers_the_name_is_never_without_a_run(crowd: list[Claimant], current: str | None) -> None:
    found = holder(crowd, current)
    answering = [each for each in crowd if each.serving and not each.suspended]
    if answering:
        assert found is not None
        assert not found.suspended
        assert (found.created, found.name) >= max((each.created, each.name) for each in answering)
    gone = current is not None and current not in [each.name for each in crowd]
    if found is not None and not gone:
        assert found in answering or found.name == current
    if gone:
        assert found is None or not found.suspended
