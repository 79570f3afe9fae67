"""What the ranks agree on when a step ends: one small all-reduce on the host for all of it."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Self

from falcon_trainer.train.zero import control_group


@dataclass(frozen=True)
class Wish:
    """What one rank brings, and, joined with the others', what all of them act on."""

    stop: bool = False
    """Any rank was asked to stop."""
    save: bool = False
    """A checkpoint is due by the clock of rank 0, the only one that is asked: clocks differ."""
    failed: bool = False
    """Rank 0 could not write a checkpoint."""
    durable_step: int = 0
    """Step of the newest checkpoint that is on the volume, as rank 0 knows; 0 where there is none."""

    def numbers(self) -> list[int]:
        """To be joined by the maximum: a wish of any rank is one of all."""
        return [int(value) for value in astuple(self)]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Self:
        stop, save, failed, durable_step = numbers
        return cls(bool(stop), bool(save), bool(failed), durable_step)


def agree(mine: Wish) -> Wish:
    """The same on every rank. All ranks call."""
    import torch

    numbers = torch.tensor(mine.numbers(), dtype=torch.int64)
    torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX, group=control_group())
    return Wish.of(numbers.tolist())
