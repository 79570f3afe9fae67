"""Who answers to a name that several runs share."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """A run that has the alias in its spec and has answered before."""

    name: str
    uid: str
    created: datetime
    serving: bool
    """Whether it answers now, with all that its spec asks for."""
    suspended: bool = False


def holder(claimants: Collection[Claimant], current: str | None) -> Claimant | None:
    """The newest claimant that answers; of two that were created in the same second, the one whose name comes last.

    The present holder (`current` is its name) keeps the name while it does not answer, against older runs: a rollout
    or a lost node is no reason to give clients another model. Suspended it keeps the name only until another one
    answers. A holder that is gone leaves it, where nobody answers, to the newest that is not suspended: it has
    answered before, and while it rolls out its older pods still do. None where nobody may have it.
    """
    there = [each for each in claimants if each.name == current]
    answering = [each for each in claimants if each.serving and not each.suspended]
    staying = [each for each in there if not each.suspended]
    awake = [each for each in claimants if not each.suspended]
    return max(
        [*answering, *staying] or there or (awake if current else []),
        key=lambda each: (each.created, each.name),
        default=None,
    )
