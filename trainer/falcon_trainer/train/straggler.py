"""Which rank is slow. Pure.

The time of a step cannot tell: each collective waits for the last rank, so all ranks take equally long. Now and then
every rank times the same small computation on its own device (see probe.py), and these times are compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from falcon_trainer.progress import Notice

PERIOD = 30.0
"""Seconds between two looks, about."""
STEPS_APART = 10
"""Steps between two looks, at least: what a look costs must not show where steps are long, either."""
SLOW = 2.0
"""Multiple of the usual time."""
IN_A_ROW = 3
"""Looks: one or two may be another process's doing."""


@dataclass(frozen=True)
class Slow:
    """A rank that was slow at the last few looks."""

    rank: int
    times: float
    """How many times the usual time it took, at the last look."""


def usual(seconds: Sequence[float]) -> float:
    """What a rank takes that is not slow: the median, or the faster one of two, of which no majority can tell."""
    return median(seconds) if len(seconds) > 2 else min(seconds)


def steps_until_next(steps: int, seconds: float) -> int:
    """Steps until the next look, where the last `steps` took `seconds`."""
    return max(STEPS_APART, math.ceil(PERIOD * steps / max(seconds, 1e-3)))


class Streaks:
    """What the looks have shown so far."""

    def __init__(self) -> None:
        self._streaks: dict[int, int] = {}

    def take(self, seconds: Sequence[float]) -> list[Slow]:
        """The ranks that are slow now, the slowest first, given what each rank took at this look."""
        usually = usual(seconds)
        behind = {rank for rank, each in enumerate(seconds) if each > SLOW * usually}
        self._streaks = {rank: self._streaks.get(rank, 0) + 1 for rank in behind}
        slow = [Slow(rank, seconds[rank] / usually) for rank, count in self._streaks.items() if count >= IN_A_ROW]
        return sorted(slow, key=lambda each: (-each.times, each.rank))


def remark(slow: Sequence[Slow], places: Sequence[str]) -> str | None:
    """A phrase for the status, of at most 256 characters; None where no rank is slow. `places` say where ranks run."""
    if not slow:
        return None
    first, more = slow[0], len(slow) - 1
    text = f"{places[first.rank]} is slow: it computes {first.times:.1f} times as long as usual"
    text += f"; so are {more} other ranks" if more > 1 else "; so is another rank" if more else ""
    return text[:256]


def notice(slow: Slow, places: Sequence[str]) -> Notice:
    """What a person hears of a slow rank."""
    text = f"{places[slow.rank]} takes {slow.times:.1f} times as long as usual for the same computation, at {IN_A_ROW} "
    text += "looks in a row, and every step waits for it. Look at that node: other work on it, throttling, heat."
    return Notice(reason="SlowRank", message=text[:512])
