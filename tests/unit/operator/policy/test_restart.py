"""Whether, and when, the gang starts again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_operator.policy.failure import Failure, Kind
from falcon_operator.policy.restart import LONGEST_PAUSE, Verdict, decide, pause

FAULT = Failure(reason="InternalError", message="m")
FINAL = Failure(reason="InvalidData", message="m", retryable=False)
DISRUPTION = Failure(reason="Preempted", message="m", kind=Kind.DISRUPTION)

Before = tuple[int, int, bool]
"""Faults and disruptions before this end, and whether the attempt left a newer checkpoint."""

CASES: dict[str, tuple[Failure, Before, Verdict]] = {
    "the first fault restarts at once": (FAULT, (0, 0, False), Verdict(True, 0.0, 1, 0)),
    "the second in a row waits": (FAULT, (1, 0, False), Verdict(True, 10.0, 2, 0)),
    "the last one that is allowed": (FAULT, (2, 0, False), Verdict(True, 20.0, 3, 0)),
    "one more than allowed": (FAULT, (3, 0, False), Verdict(False, 40.0, 4, 0, exhausted=True)),
    "a newer checkpoint starts both counters anew": (FAULT, (3, 7, True), Verdict(True, 0.0, 1, 0)),
    "a fault that would come again is not tried again": (FINAL, (0, 0, False), Verdict(False, 0.0, 1, 0)),
    "a disruption uses up nothing": (DISRUPTION, (3, 9, False), Verdict(True, 300.0, 3, 10)),
    "a disruption that cost nothing waits for nothing": (DISRUPTION, (3, 9, True), Verdict(True, 0.0, 0, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict(case: str) -> None:
    failure, (restarts, disruptions, newer), expected = CASES[case]
    found = decide(failure, restarts=restarts, disruptions=disruptions, newer_checkpoint=newer, max_restarts=3)
    assert found == expected


@given(st.integers(min_value=0, max_value=1_000_000))
def test_a_pause_never_shrinks_and_never_exceeds_its_limit(failures: int) -> None:
    assert 0.0 <= pause(failures) <= pause(failures + 1) <= LONGEST_PAUSE


@given(st.lists(st.sampled_from([FAULT, DISRUPTION]), max_size=60), st.integers(min_value=0, max_value=8))
def test_faults_without_progress_end_after_the_allowed_number_whatever_else_happens(
    ends: list[Failure], max_restarts: int
) -> None:
    restarts = disruptions = faults = 0
    for end in ends:
        verdict = decide(
            end, restarts=restarts, disruptions=disruptions, newer_checkpoint=False, max_restarts=max_restarts
        )
        restarts, disruptions = verdict.restarts, verdict.disruptions
        faults += end is FAULT
        if not verdict.restart:
            break
        assert faults <= max_restarts
    else:
        return
    assert faults == max_restarts + 1
