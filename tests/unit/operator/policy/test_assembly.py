"""When a gang that is not whole gives its nodes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_operator.objects import Object
from falcon_operator.policy import assembly, restart
from falcon_operator.policy.failure import Failure, Kind
from tests.unit.operator.policy.pods import deleted, pod, unschedulable, waiting

LONG = 1000.0
CASES: dict[str, tuple[list[Object], bool]] = {
    "one runs, one finds no node": ([pod("a"), unschedulable("no GPU", "b")], True),
    "one pulls its image, one finds no node": ([waiting("a", "ContainerCreating"), unschedulable("no GPU", "b")], True),
    "none has a node: nobody is kept out": ([unschedulable("no GPU", "a"), unschedulable("no GPU", "b")], False),
    "all have a node: they only need time": ([pod("a"), waiting("b", "ContainerCreating")], False),
    "one is not looked at by the scheduler yet": ([pod("a"), pod("b", "Pending") | {"spec": {}}], False),
    "the one with a node is leaving": ([deleted(pod("a")), unschedulable("no GPU", "b")], False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_gang_gives_up_where_it_holds_nodes_in_vain(case: str) -> None:
    pods, expected = CASES[case]
    assert assembly.given_up(pods, LONG, 300, "uid") is expected
    assert not assembly.given_up(pods, 299, 300, "uid"), "before its time"


@given(st.lists(st.uuids().map(str), min_size=2, max_size=2, unique=True))
def test_two_gangs_neither_give_up_nor_come_back_together(uids: list[str]) -> None:
    first, second = (assembly.spread(uid) for uid in uids)
    assert 0 <= first <= 1
    assert first != second
    vain = Failure(reason=assembly.REASON, message="m", kind=Kind.DISRUPTION)
    pauses = [
        restart.decide(
            vain, restarts=0, disruptions=0, newer_checkpoint=False, max_restarts=5, spread=assembly.spread(uid)
        ).pause
        for uid in uids
    ]
    assert all(restart.FIRST_PAUSE <= pause <= 2 * restart.FIRST_PAUSE for pause in pauses)
