"""When what was seen."""

import threading

import pytest

from tests.chaos.campaign import repeated
from tests.chaos.recovery import ended, job, runs, tainted
from tests.chaos.timeline import Condition, Timeline


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def named(name: str) -> Condition:
    return lambda state: bool(state["name"] == name)


def seen(*states: tuple[float, str]) -> Timeline:
    clock = Clock()
    kept = Timeline(clock)
    for clock.now, name in states:
        kept.add({"name": name})
    return kept


def test_the_first_state_counts_that_came_after_the_question() -> None:
    kept = seen((1.0, "a"), (2.0, "b"), (3.0, "a"), (4.0, "a"))
    assert kept.first("a", named("a")) == 1.0
    assert kept.first("a", named("a"), since=2.0) == 3.0


def test_what_has_not_come_yet_is_waited_for() -> None:
    kept = seen((1.0, "a"))
    threading.Thread(target=kept.add, args=({"name": "b"},)).start()
    assert kept.first("b", named("b"), timeout=60) == 1.0


def test_what_never_comes_is_named() -> None:
    with pytest.raises(TimeoutError, match="the third wish"):
        seen((1.0, "a")).first("the third wish", named("c"), timeout=0.01)


POD = {"kind": "Pod", "metadata": {"name": "p", "uid": "1"}, "status": {"phase": "Running"}}
TAINT = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
STATES = {
    "a job by its name": (job("j"), {"kind": "Job", "metadata": {"name": "j"}}, True),
    "another job": (job("j"), {"kind": "Job", "metadata": {"name": "k"}}, False),
    "a pod that runs": (runs(POD), POD, True),
    "a namesake is another pod": (runs(POD), POD | {"metadata": {"name": "p", "uid": "2"}}, False),
    "a pod that runs has not ended": (ended(POD), POD, False),
    "a pod that failed has": (ended(POD), POD | {"status": {"phase": "Failed"}}, True),
    "a node that is missed": (
        tainted("n"),
        {"kind": "Node", "metadata": {"name": "n"}, "spec": {"taints": [TAINT]}},
        True,
    ),
    "a node that is well": (tainted("n"), {"kind": "Node", "metadata": {"name": "n"}, "spec": {}}, False),
    "a taint that lets pods be": (
        tainted("n"),
        {"kind": "Node", "metadata": {"name": "n"}, "spec": {"taints": [TAINT | {"effect": "NoSchedule"}]}},
        False,
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_what_is_looked_for(name: str) -> None:
    condition, state, expected = STATES[name]
    assert condition(state) is expected


def test_steps_that_were_done_twice_are_counted_attempt_by_attempt() -> None:
    book = [{"lastStep": 17}, {"resumedFromStep": 15, "lastStep": 40}, {"resumedFromStep": 40}, {}]
    assert repeated(book) == 2
