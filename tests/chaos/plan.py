"""Which faults a campaign puts into its runs, and when: a pure function of its seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What can happen to a training on a cluster."""

    POD_DELETED = "pod deleted"
    """SIGTERM, with time to save."""
    RANK_KILLED = "rank killed"
    """SIGKILL, as the kernel does when memory runs out."""
    NODE_LOST = "node lost"
    OPERATOR_KILLED = "operator killed"
    API_SERVER_RESTARTED = "API server restarted"


ENDS_AN_ATTEMPT = frozenset({Fault.POD_DELETED, Fault.RANK_KILLED, Fault.NODE_LOST})


@dataclass(frozen=True)
class Strike:
    """One fault."""

    step: int
    """It comes as soon as this step is done."""
    rank: int
    """The rank, pod or node that it hits; without meaning for the control plane."""
    fault: Fault


def campaign(seed: int, *, runs: int, steps: int, ranks: int, strikes: int = 2) -> list[tuple[Strike, ...]]:
    """The strikes of each run, in the order of their steps; each kind comes as often as any other, give or take one.

    A run of more `strikes` than it has steps before its last one cannot be planned: ValueError.
    """
    chance = random.Random(seed)
    kinds = _dealt(chance, runs * strikes)
    return [
        tuple(
            Strike(step, chance.randrange(ranks), fault)
            for step, fault in zip(
                sorted(chance.sample(range(1, steps), strikes)),
                kinds[number * strikes : (number + 1) * strikes],
                strict=True,
            )
        )
        for number in range(runs)
    ]


def _dealt(chance: random.Random, count: int) -> Sequence[Fault]:
    """Kinds as from a pack of cards that is shuffled anew whenever it is used up."""
    dealt: list[Fault] = []
    while len(dealt) < count:
        dealt += chance.sample(list(Fault), len(Fault))
    return dealt[:count]
