"""Whether the gang is started again after an attempt ended, and after which pause."""

from dataclasses import dataclass

from falcon_operator.policy.failure import Failure, Kind

FIRST_PAUSE = 10.0
"""Seconds before the second restart in a row; the first one waits for nothing."""
LONGEST_PAUSE = 300.0


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


def decide(failure: Failure, *, restarts: int, disruptions: int, newer_checkpoint: bool, max_restarts: int) -> Verdict:
    """The verdict on an attempt that ended by `failure`.

    An attempt that left a newer checkpoint made progress: both counters start anew, so that a run of weeks is not ended
    by the sum of unrelated faults. Only faults use up `max_restarts`. What failed without progress waits longer each
    time, be it a fault or a disruption.
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
        pause=pause(restarts + disruptions),
        restarts=restarts,
        disruptions=disruptions,
        exhausted=exhausted,
    )


def pause(failures: int) -> float:
    """Seconds to wait after that many ends without progress: 0, 10, 20, 40, … up to LONGEST_PAUSE."""
    if failures <= 1:
        return 0.0
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 2, 16)))
