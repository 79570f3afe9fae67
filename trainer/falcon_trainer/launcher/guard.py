"""Watches the ranks of a gang while they run, and says when they must be ended."""

import sys
from collections.abc import Sequence

from falcon_trainer.launcher import stopping
from falcon_trainer.launcher.hang import Hang, Patience, slow, standstill
from falcon_trainer.launcher.inquiry import Finding, Inquiry
from falcon_trainer.launcher.pulse import Pulse, WatchedClock
from falcon_trainer.launcher.state import State


class Guard:
    """Looks at the ranks about every second; afterwards it tells what it has done."""

    def __init__(self, state: State, inquiry: Inquiry, patience: Patience, *, alone: bool) -> None:
        """`alone`: all ranks of the gang are in this pod."""
        self._state, self._inquiry, self._patience, self._alone = state, inquiry, patience, alone
        self._clock = WatchedClock()
        self._failed_at: float | None = None
        self._ended_at: float | None = None
        self._found_at = 0.0
        self._finding: Finding | None = None
        self.hang: Hang | None = None
        self.killed: set[int] = set()
        """Ranks that were killed because another one had failed."""

    def look(self, agent: int, since_stop: float | None) -> str | None:
        """Why everything must be killed now; None while it may go on. `agent` is torchrun's process."""
        now = self._clock.read()
        pulses = self._state.look(self._inquiry.ranks.states(agent))
        self._state.remark = slow(pulses, self._state.step_seconds)
        self._part(pulses, now)
        if why := self._left_over(pulses, now):
            return why
        if since_stop is not None:
            return stopping.beyond_saving(pulses, self._patience, self._state.step_seconds, since_stop)
        return self._hung(pulses, agent, now)

    def _part(self, pulses: Sequence[Pulse], now: float) -> None:
        """Ends ranks that stay after another one failed, and those alone, so that torchrun tells what happened."""
        if not stopping.failed(pulses, self._state.endings):
            return
        self._failed_at = now if self._failed_at is None else self._failed_at
        if now - self._failed_at <= self._patience.limit("farewell"):
            return
        for rank in stopping.stayed(pulses) - self.killed:
            print(f"rank {rank} does not leave although another rank failed: it is killed", file=sys.stderr)
            self._inquiry.ranks.kill(rank)
            self.killed.add(rank)

    def _left_over(self, pulses: Sequence[Pulse], now: float) -> str | None:
        """Whether processes stay although their ranks have told how they ended."""
        if not all(pulse.ended for pulse in pulses):
            return None
        self._ended_at = now if self._ended_at is None else self._ended_at
        if now - self._ended_at <= self._patience.limit("exit"):
            return None
        return f"was killed because it had not left {now - self._ended_at:.0f} s after all its ranks had ended"

    def _hung(self, pulses: Sequence[Pulse], agent: int, now: float) -> str | None:
        found = standstill(pulses, self._patience, self._state.step_seconds)
        if found is None:
            self._finding = None
            return None
        if self._finding is None:
            self._finding, self._found_at = self._inquiry.find(found, pulses, agent), now
            print(f"hung: {self._finding.message}", file=sys.stderr)
        named = self._finding.named
        deference = 0.0 if named or self._alone else self._patience.limit("deference")
        if now - self._found_at < deference:
            return None
        self.hang = Hang(message=self._finding.message, rank=named[0].rank if named else None, step=found.step)
        return "was ended as hung"
