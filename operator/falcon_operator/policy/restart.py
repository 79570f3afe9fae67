"""Whether the gang is started again after an attempt ended, and after which pause."""

from dataclasses import dataclass

from falcon_operator.policy import assembly
from falcon_operator.policy.failure import WAITED_IN_VAIN, Failure, Kind

FIRST_PAUSE = 10.0
"""Seconds before the second restart in a row; the first one waits for nothing."""
LONGEST_PAUSE = 300.0
HELD_IN_VAIN = frozenset({assembly.REASON, WAITED_IN_VAIN})
"""Ends of gangs that were never whole."""


@dataclass(frozen=True)
class Verdict:
    """What follows from the end of an attempt."""

    restart: bool
    pause: float
    """Seconds until the next attempt may be created."""
    restarts: int
    """Faults since the newest checkpoint that moved on, this one included."""
    disruptions: int
    exhausted: bool = False
    """Whether only gang.maxRestarts forbids a restart."""


def decide(
    failure: Failure, *, restarts: int, disruptions: int, newer_checkpoint: bool, max_restarts: int, spread: float = 0.0
) -> Verdict:
    """The verdict on an attempt that ended by `failure`.

    An attempt that left a newer checkpoint made progress: both counters start anew, so that a run of weeks is not ended
    by the sum of unrelated faults. Only faults use up `max_restarts`. What failed without progress waits longer each
    time, be it a fault or a disruption. A gang that held nodes in vain always waits, and not as long as others do: two
    that take nodes from each other must not come back together (`spread`, from 0 to 1, is the run's own).
    """
    if newer_checkpoint:
        restarts = disruptions = 0
    if failure.kind is Kind.FAULT:
        restarts += 1
    else:
        disruptions += 1
    exhausted = failure.retryable and failure.kind is Kind.FAULT and restarts > max_restarts
    return Verdict(
        restart=failure.retryable and not exhausted,
        pause=_parted(failure, pause(restarts + disruptions), spread),
        restarts=restarts,
        disruptions=disruptions,
        exhausted=exhausted,
    )


def _parted(failure: Failure, seconds: float, spread: float) -> float:
    if failure.reason not in HELD_IN_VAIN:
        return seconds
    return round(max(seconds, FIRST_PAUSE) * (1.0 + spread), 1)


def pause(failures: int) -> float:
    """Seconds to wait after that many ends without progress: 0, 10, 20, 40, … up to LONGEST_PAUSE."""
    if failures <= 1:
        return 0.0
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 2, 16)))
