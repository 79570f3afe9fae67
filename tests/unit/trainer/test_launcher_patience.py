"""When ranks count as hung, and when they need not be waited for: pure decisions."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_trainer.beats import Beat
from falcon_trainer.endings import Ending
from falcon_trainer.launcher.hang import LIMITS, Patience, Standstill, slow, standstill
from falcon_trainer.launcher.pulse import GONE, LONGEST_GAP, Pulse, Pulses
from falcon_trainer.launcher.stopping import beyond_saving, failed, stayed
from falcon_trainer.outcome import Outcome
from falcon_trainer.progress import Progress
from tests.unit.trainer.pulses import phase, train

FIVE_MINUTES, HALF_AN_HOUR, AN_HOUR = 300.0, 1800.0, 3600.0


@dataclass(frozen=True, kw_only=True)
class Case:
    pulses: tuple[Pulse, ...]
    hang_timeout: float | None = None
    step_seconds: float | None = 2.0
    limit: float | None = None
    """That was exceeded; None: nothing hangs."""


STILL = {
    "a step within its limit": Case(pulses=(train(still=299),)),
    "a step beyond the floor": Case(pulses=(train(still=301),), limit=FIVE_MINUTES),
    "a step within ten times what long steps take": Case(pulses=(train(still=899),), step_seconds=90.0),
    "a step beyond ten times what long steps take": Case(pulses=(train(still=901),), step_seconds=90.0, limit=900),
    "the first step may compile": Case(pulses=(train(still=1799),), step_seconds=None),
    "the first step does not compile for ever": Case(
        pulses=(train(still=1801),), step_seconds=None, limit=HALF_AN_HOUR
    ),
    "the configured time-out replaces the limit of a step": Case(pulses=(train(still=21),), hang_timeout=20, limit=20),
    "the configured time-out holds for the first step too": Case(
        pulses=(train(still=21),), hang_timeout=20, step_seconds=None, limit=20
    ),
    "a longer configured time-out is waited for": Case(pulses=(train(still=3599),), hang_timeout=AN_HOUR),
    "a rank that beats in its step without finishing it": Case(pulses=(train(still=301, silent=1),), limit=300),
    "a rank that has not spoken yet": Case(pulses=(Pulse(rank=0, silent=1799),)),
    "a rank that never speaks": Case(pulses=(Pulse(rank=0, silent=1801),), limit=HALF_AN_HOUR),
    "loading has an hour": Case(pulses=(phase("load", 3599),)),
    "loading that stands still": Case(pulses=(phase("load", 3601),), limit=AN_HOUR),
    "an evaluation that says that it goes on": Case(pulses=(Pulse(rank=0, phase="evaluate", still=9999, silent=2),)),
    "an evaluation that stands still": Case(pulses=(phase("evaluate", 1801),), limit=HALF_AN_HOUR),
    "a save that stands still": Case(pulses=(phase("save", 1801),), limit=HALF_AN_HOUR),
    "samples that stand still": Case(pulses=(phase("samples", 1801),), limit=HALF_AN_HOUR),
    "data that stand still": Case(pulses=(phase("data", 3601),), limit=AN_HOUR),
    "a phase of a newer trainer has the longest patience": Case(pulses=(phase("transmute", 3599),)),
    "the configured time-out does not shorten a save": Case(pulses=(phase("save", 1799),), hang_timeout=20),
    "a long configured time-out lengthens a save": Case(pulses=(phase("save", 1801),), hang_timeout=AN_HOUR),
    "a rank that waits in its step while another one saves": Case(pulses=(train(still=900), phase("save", 900, 1))),
    "a rank that waits in its step while another one's save hangs": Case(
        pulses=(train(still=1801), phase("save", 1801, 1)), limit=HALF_AN_HOUR
    ),
    "one rank moves, so the other one may wait for it": Case(pulses=(train(0, still=900), train(1, step=8, still=1))),
    "a rank that has ended does not count": Case(pulses=(train(still=9999, ended=True), train(1, still=1))),
    "all ranks have ended": Case(pulses=(train(still=9999, ended=True),)),
    "a rank stopped for a moment": Case(pulses=(phase("save", 900), train(1, still=900, stopped=10.0, state="T"))),
    "a rank stopped for longer than a step, while the other waits for it in its save": Case(
        pulses=(phase("save", 400), train(1, still=400, stopped=301.0, state="T")), limit=FIVE_MINUTES
    ),
    "a rank that a debugger holds has the patience of its phase": Case(
        pulses=(phase("save", 400), train(1, still=400, state="t"))
    ),
}


@pytest.mark.parametrize("case", STILL.values(), ids=STILL)
def test_a_pod_is_hung_when_none_of_its_ranks_has_moved_for_as_long_as_its_phase_may_take(case: Case) -> None:
    found = standstill(case.pulses, Patience(hang_timeout=case.hang_timeout), case.step_seconds)
    assert (found and found.limit) == case.limit


def test_single_limits_can_be_replaced() -> None:
    patience = Patience(limits={"load": 7200, "transmute": 5})
    assert [patience.of(name, None) for name in ("load", "transmute", "save")] == [7200, 5, LIMITS["save"]]


LOOK = 2.5


class Launcher:
    """Looks every LOOK seconds of a clock of its own at ranks that beat as they are told."""

    def __init__(self, patience: Patience) -> None:
        self.now = 1000.0
        self._patience = patience
        self._pulses = Pulses(range(1), clock=lambda: self.now)
        self._beats: dict[int, Beat] = {}
        self._marks = 0

    def beat(self, phase: str, step: int | None, *, mark: int | None = None) -> None:
        self._marks += 1
        told = Progress(stage="train", phase=phase, step=step)
        self._beats[0] = Beat(told, (self._marks if mark is None else mark, 0))

    def wait(self, seconds: float) -> Standstill | None:
        """The first standstill found in that time."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + LOOK)
            if found := self.look():
                return found
        return None

    def look(self) -> Standstill | None:
        pulses = self._pulses.look(self._beats)
        return standstill(pulses, self._patience, self._pulses.step_seconds)

    @property
    def limit(self) -> float:
        return self._patience.of("train", self._pulses.step_seconds)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(0.0, 0.98), min_size=1, max_size=40),
    st.none() | st.floats(10, 600),
)
def test_a_slow_run_whose_every_step_ends_within_its_limit_is_never_ended(
    shares: list[float], hang_timeout: float | None
) -> None:
    launcher = Launcher(Patience(hang_timeout=hang_timeout, limits={"step": 30, "first-step": 60}))
    launcher.beat("train", 0)
    assert launcher.look() is None
    for step, share in enumerate(shares, start=1):
        assert launcher.wait(share * min(launcher.limit, 600)) is None
        launcher.beat("train", step)
        assert launcher.look() is None


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.1, 60), max_size=30), st.none() | st.floats(10, 600))
def test_a_run_that_stands_still_is_ended_when_its_limit_is_over_and_not_before(
    durations: list[float], hang_timeout: float | None
) -> None:
    launcher = Launcher(Patience(hang_timeout=hang_timeout))
    launcher.beat("train", 0)
    launcher.look()
    for step, seconds in enumerate(durations, start=1):
        launcher.now += min(seconds, LONGEST_GAP)
        launcher.beat("train", step)
        launcher.look()
    limit = launcher.limit
    assert launcher.wait(limit - 0.1) is None
    found = launcher.wait(LOOK)
    assert found is not None
    assert found.limit == limit
    assert found.step == len(durations)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_time_in_which_the_launcher_itself_stood_still_is_not_held_against_the_ranks(gaps: list[float]) -> None:
    launcher = Launcher(Patience(hang_timeout=LONGEST_GAP * 31))
    launcher.beat("train", 1)
    for gap in gaps:
        launcher.now += gap
        assert launcher.look() is None


def test_a_wall_clock_that_jumps_makes_nobody_late_and_nobody_young() -> None:
    launcher = Launcher(Patience(hang_timeout=60))
    for step, mark in enumerate([10**18, 2 * 10**18, 1]):  # nanoseconds: decades ahead, and back again
        launcher.beat("train", step, mark=mark)
        launcher.look()
        assert launcher.wait(59) is None
    assert launcher.wait(4) is not None


def test_the_step_time_is_the_median_of_the_last_steps_of_all_ranks() -> None:
    now = 0.0
    pulses = Pulses(range(2), clock=lambda: now)
    assert pulses.step_seconds is None
    for step, seconds in enumerate([0.0, 100.0, *[2.0] * 25, 50.0]):
        now += min(seconds, LONGEST_GAP)
        told = Progress(stage="train", phase="train", step=step)
        pulses.look({rank: Beat(told, (step, rank)) for rank in range(2)})
    assert pulses.step_seconds == 2.0


def test_steps_that_pass_between_two_looks_share_the_time() -> None:
    now = 0.0
    pulses = Pulses(range(1), clock=lambda: now)
    for step in (10, 20, 30):
        pulses.look({0: Beat(Progress(stage="train", phase="train", step=step), (step, 0))})
        now += 1.0
    assert pulses.step_seconds == pytest.approx(0.1)


def test_a_stopped_process_is_stopped_for_as_long_as_it_is_seen_so() -> None:
    now = 0.0
    pulses = Pulses(range(1), clock=lambda: now)
    for state, expected in (("S", None), ("T", 0.0), ("T", 1.0), ("T", 2.0), ("S", None)):
        assert pulses.look({}, states={0: state})[0].stopped == expected
        assert pulses.look({})[0].stopped == expected  # a look at the beats alone
        now += 1.0


SLOW: dict[str, tuple[tuple[Pulse, ...], float | None, str | None]] = {
    "all goes well": ((train(still=3), train(1, still=3)), 2.0, None),
    "a step that takes longer than others, but not by much": ((train(still=11),), 4.0, None),
    "nothing is known of steps yet": ((train(still=100),), None, None),
    "the step takes long on all ranks": (
        (train(still=13), train(1, still=14)),
        4.0,
        "no step has ended for 13 s; steps take 4.0 s",
    ),
    "a rank is behind": ((train(still=20), train(1, 6, still=40)), 4.0, "rank 1 is behind, at step 6 of 7, for 40 s"),
    "a rank is stopped": (
        (train(still=1), train(1, still=1, stopped=5.0)),
        2.0,
        "rank 1 is stopped (SIGSTOP) for 5 s, in phase train after step 7",
    ),
    "ranks that have ended are not slow": ((train(still=99, ended=True),), 2.0, None),
}


@pytest.mark.parametrize(("pulses", "step_seconds", "expected"), SLOW.values(), ids=SLOW)
def test_the_rank_that_the_others_wait_for_is_named_while_the_run_goes_on(
    pulses: tuple[Pulse, ...], step_seconds: float | None, expected: str | None
) -> None:
    assert slow(pulses, step_seconds) == expected


@dataclass(frozen=True, kw_only=True)
class Stop:
    pulses: tuple[Pulse, ...]
    since: float
    step_seconds: float | None = 2.0
    expected: str | None = None


STOPS = {
    "steps end": Stop(pulses=(train(still=1), train(1, still=1)), since=60),
    "a step has had less than three times its time": Stop(pulses=(train(still=50),), since=50, step_seconds=20.0),
    "no step ends any more": Stop(pulses=(train(still=30), train(1, still=12)), since=11, expected="steps take 2.0 s"),
    "a stopped rank is named": Stop(
        pulses=(train(still=12), train(1, still=12, stopped=12)), since=12, expected="rank 1 is stopped (SIGSTOP)"
    ),
    "what stood still before the stop does not count": Stop(pulses=(train(still=100),), since=9),
    "long steps are given their time": Stop(pulses=(train(still=70),), since=61, step_seconds=20.0, expected="61 s"),
    "loading has nothing to save": Stop(pulses=(phase("load", 1),), since=11, step_seconds=None, expected="no step"),
    "ranks that load may leave by themselves": Stop(pulses=(phase("load", 1),), since=9, step_seconds=None),
    "the first step has nothing to save": Stop(pulses=(train(still=11),), since=11, step_seconds=None, expected="no"),
    "a save has all of the grace period": Stop(pulses=(phase("save", 100), train(1, still=100)), since=100),
    "an evaluation has all of the grace period": Stop(pulses=(phase("evaluate", 100),), since=100),
    "all have ended": Stop(pulses=(train(still=100, ended=True),), since=100),
}


@pytest.mark.parametrize("case", STOPS.values(), ids=STOPS)
def test_after_sigterm_ranks_are_waited_for_while_they_may_still_save(case: Stop) -> None:
    found = beyond_saving(case.pulses, Patience(), case.step_seconds, case.since)
    assert (found is None) == (case.expected is None)
    assert case.expected is None or case.expected in (found or "")


def ending(code: int) -> Ending:
    return Ending(rank=1, code=code, time=1.0, outcome=Outcome(reason="Said", message="so"))


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    {
        "it told a failure": ("S", 70, True),
        "it is gone without a word": (GONE, None, True),
        "it was stopped on request: the others may still save": (GONE, 143, False),
        "it is done": (GONE, 0, False),
        "it works": ("R", None, False),
        "it was not started yet": ("", None, False),
    }.values(),
)
def test_a_rank_has_failed_when(state: str, code: int | None, expected: bool) -> None:
    endings = {} if code is None else {1: ending(code)}
    assert failed([train(1, state=state, ended=code is not None)], endings) is expected


def test_the_peers_of_a_failed_rank_must_leave_but_for_one_that_saves() -> None:
    there = [train(0, state="R"), train(1, state=GONE), phase("save", 1, 2, state="D"), train(3, state="")]
    assert stayed(there) == {0}
