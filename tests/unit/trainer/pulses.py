"""Pulses of ranks, as the launcher's decisions are given them."""

from falcon_trainer.launcher.pulse import Pulse


def train(
    rank: int = 0,
    step: int = 7,
    still: float = 0.0,
    *,
    silent: float | None = None,
    ended: bool = False,
    state: str = "",
    stopped: float | None = None,
) -> Pulse:
    """A rank between two steps; by default its last word was the step."""
    heard = still if silent is None else silent
    return Pulse(
        rank=rank, phase="train", step=step, still=still, silent=heard, ended=ended, state=state, stopped=stopped
    )


def phase(name: str, silent: float, rank: int = 0, *, state: str = "") -> Pulse:
    """A rank that has said nothing since a phase began."""
    return Pulse(rank=rank, phase=name, silent=silent, still=silent, state=state)
