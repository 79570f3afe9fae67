"""How long each rank has stood still, measured by the launcher's own clock.

Beats are compared, not dated: a wall clock that jumps makes nobody late. And time counts only while the launcher looks:
what froze it (a pod that was paused, a machine that slept) froze its ranks as well.
"""

import time
from collections import deque
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from statistics import median

from falcon_trainer.beats import Beat
from falcon_trainer.progress import Progress

LONGEST_GAP = 5.0
"""Seconds that one look adds at most; the launcher looks every second."""
STEPS = 20
"""Steps of each rank whose median is the step time."""
UNSPOKEN = "start"
"""Phase of a rank before its first beat."""


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """One rank at one moment."""

    rank: int
    phase: str = UNSPOKEN
    step: int | None = None
    silent: float = 0.0
    """Seconds since its last beat."""
    still: float = 0.0
    """Seconds since its phase or its step changed."""
    ended: bool = False
    """It has told how it ended; its process may still be there."""
    state: str = ""
    """Its process's state as proc(5) has it, GONE, or empty where it is not known."""
    stopped: float | None = None
    """Seconds for which its process has been in the state STOPPED."""


STOPPED = "T"
"""By SIGSTOP or its like; a debugger's hold is `t`."""
UNINTERRUPTIBLE = "D"
GONE = "gone"
"""A process that was there and is not any more."""


class WatchedClock:
    """Seconds during which somebody looked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last, self._seconds = clock, clock(), 0.0

    def read(self) -> float:
        now = self._clock()
        self._seconds += min(max(0.0, now - self._last), LONGEST_GAP)
        self._last = now
        return self._seconds


class Pulses:
    """The pulses of this pod's ranks, from one look to the next."""

    def __init__(self, ranks: range, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = WatchedClock(clock)
        self._ranks = {rank: _Rank(rank) for rank in ranks}

    def look(
        self, beats: Mapping[int, Beat], ended: Container[int] = (), states: Mapping[int, str] | None = None
    ) -> list[Pulse]:
        """Each rank's pulse, in order, given its newest beat, which ranks have told their end, and the states of their
        processes where they are known.
        """
        now = self._clock.read()
        for number, rank in self._ranks.items():
            if number in beats:
                rank.hear(beats[number], now)
            if states is not None:
                rank.see(states.get(number, ""), now)
        return [replace(rank.pulse(now), ended=number in ended) for number, rank in self._ranks.items()]

    @property
    def step_seconds(self) -> float | None:
        """Median of the last steps of all ranks; None before the first one is done."""
        samples = [seconds for rank in self._ranks.values() for seconds in rank.step_seconds]
        return median(samples) if samples else None


class _Rank:
    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._beat: Beat | None = None
        self._heard = self._moved = self._stepped = self._state_since = 0.0
        self._state = ""
        self.step_seconds: deque[float] = deque(maxlen=STEPS)

    def hear(self, beat: Beat, now: float) -> None:
        if beat == self._beat:
            return
        before = self._beat.progress if self._beat else Progress(stage=beat.progress.stage, phase=UNSPOKEN)
        self._beat, self._heard = beat, now
        if beat.progress.step != before.step:
            self._measure(before.step, beat.progress.step, now)
        if (beat.progress.phase, beat.progress.step) != (before.phase, before.step):
            self._moved = now

    def _measure(self, before: int | None, step: int | None, now: float) -> None:
        if before is not None and step is not None and step > before:
            self.step_seconds.append((now - self._stepped) / (step - before))
        self._stepped = now

    def see(self, state: str, now: float) -> None:
        if state != self._state:
            self._state, self._state_since = state, now

    def pulse(self, now: float) -> Pulse:
        told = self._beat.progress if self._beat else None
        return Pulse(
            rank=self._rank,
            phase=told.phase if told else UNSPOKEN,
            step=told.step if told else None,
            silent=now - self._heard,
            still=now - self._moved,
            state=self._state,
            stopped=now - self._state_since if self._state == STOPPED else None,
        )
