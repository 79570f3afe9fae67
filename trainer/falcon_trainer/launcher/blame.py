"""Which rank the others of a hung gang wait for, and the sentence that says so. Pure."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from falcon_trainer.launcher.frames import Stacks
from falcon_trainer.launcher.hang import BEFORE_TRAINING, TRAIN, Standstill, where
from falcon_trainer.launcher.pulse import GONE, STOPPED, UNINTERRUPTIBLE, Pulse

NAMED = 8
"""Ranks, and groups of ranks, that a sentence names."""
CROWD = 3
"""Ranks from which on one that differs from all others stands out."""


@dataclass(frozen=True)
class Suspect:
    """A rank that does not wait for the others."""

    rank: int
    why: str


def suspects(pulses: Sequence[Pulse], stacks: Mapping[int, Stacks]) -> list[Suspect]:
    """The ranks that hold the others up; the surest sign counts, and none where all do the same."""
    working = [pulse for pulse in pulses if not pulse.ended]
    for signs in (_by_state, _behind):
        if found := signs(working):
            return found
    return _by_stack({pulse.rank: stacks[pulse.rank] for pulse in working if pulse.rank in stacks})


def _by_state(pulses: Sequence[Pulse]) -> list[Suspect]:
    for state, why in (
        (STOPPED, "is stopped (SIGSTOP)"),
        (GONE, "is gone without a word"),
        (
            UNINTERRUPTIBLE,
            "is stuck in the kernel (state D: a disk, a network volume or a driver that does not answer)",
        ),
    ):
        if found := [Suspect(pulse.rank, why) for pulse in pulses if pulse.state == state]:
            return found
    return []


def _behind(pulses: Sequence[Pulse]) -> list[Suspect]:
    foremost = max(map(_place, pulses), default=(False, 0))
    return [Suspect(pulse.rank, f"is behind, {where(pulse)}") for pulse in pulses if _place(pulse) < foremost]


def _place(pulse: Pulse) -> tuple[bool, int]:
    return pulse.phase not in BEFORE_TRAINING, pulse.step or 0


def _by_stack(stacks: Mapping[int, Stacks]) -> list[Suspect]:
    waiting = [rank for rank, found in stacks.items() if found.in_collective]
    if waiting and len(waiting) < len(stacks):
        return [
            Suspect(rank, f"does not wait for the others: it is {found}")
            for rank, found in stacks.items()
            if rank not in waiting
        ]
    places = {rank: found.main[:1] for rank, found in stacks.items()}
    counts = Counter(places.values())
    if len(places) < CROWD or len(counts) != 2 or 1 not in counts.values():
        return []
    odd = next(rank for rank, place in places.items() if counts[place] == 1)
    return [Suspect(odd, f"is alone in what it does: it is {stacks[odd]}")]


def sentence(
    standstill: Standstill, found: Sequence[Suspect], stacks: Mapping[int, Stacks], *, configured: bool, kept: str
) -> str:
    """What is told of a hang; `kept` says where the stacks are."""
    event = "no step has ended" if standstill.phase == TRAIN else "no rank has moved"
    place = f"in phase {standstill.phase}" + ("" if standstill.step is None else f" after step {standstill.step}")
    limit = f"limit {standstill.limit:.0f} s" + (", gang.hangTimeout" if configured else "")
    culprits = "; ".join(f"rank {suspect.rank} {suspect.why}" for suspect in found[:NAMED])
    others = _others(stacks, {suspect.rank for suspect in found})
    parts = [
        f"{event} for {standstill.seconds:.0f} s {place} ({limit})",
        culprits or "no rank of this pod stands out: they wait for one another, or for a rank of another pod",
        *([others] if others else []),
        kept,
        "the next attempt goes on from the newest checkpoint; if training was only slow, raise gang.hangTimeout",
    ]
    return ". ".join(part[0].upper() + part[1:] for part in parts)


def _others(stacks: Mapping[int, Stacks], named: set[int]) -> str:
    groups: dict[str, list[int]] = defaultdict(list)
    for rank, found in sorted(stacks.items()):
        if rank not in named:
            groups[str(found)].append(rank)
    listed = list(groups.items())[:NAMED]
    return "; ".join(f"{_ranks(ranks)} {place}" for place, ranks in listed)


def _ranks(ranks: Sequence[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]} is"
    shown = ", ".join(map(str, ranks[:NAMED])) + (" …" if len(ranks) > NAMED else "")
    return f"ranks {shown} are"
