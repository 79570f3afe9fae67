"""Finds out what hung ranks were doing, and leaves it in the run's report before they are killed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from falcon_trainer.launcher.blame import Suspect, sentence, suspects
from falcon_trainer.launcher.frames import parse
from falcon_trainer.launcher.hang import Standstill, where
from falcon_trainer.launcher.pulse import GONE, STOPPED, UNINTERRUPTIBLE, Pulse
from falcon_trainer.launcher.ranks import Ranks, waits_in
from falcon_trainer.launcher.stacks import ask, keep


@dataclass(frozen=True)
class Finding:
    """What an inquiry found."""

    named: Sequence[Suspect]
    message: str


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """Where an inquiry looks, and where it leaves what it finds."""

    ranks: Ranks
    runtime: Path
    report: Path
    """The run's report folder on the workspace."""
    shown_report: str
    """That folder as people are told of it."""
    attempt: int
    configured: bool
    """Whether the run sets its hang time-out itself."""

    def find(self, standstill: Standstill, pulses: Sequence[Pulse], agent: int) -> Finding:
        """Asks every rank that can answer for its stacks, keeps these, and names who holds the others up."""
        texts = ask(self._able(pulses), self.runtime)
        later = self.ranks.states(agent)
        seen = [_lasting(pulse, later.get(pulse.rank, "")) for pulse in pulses]
        stacks = {rank: parse(text) for rank, text in texts.items()}
        named = suspects(seen, stacks)
        kept = self._keep(seen, texts)
        return Finding(named, sentence(standstill, named, stacks, configured=self.configured, kept=kept))

    def _able(self, pulses: Sequence[Pulse]) -> dict[int, int]:
        """Pids of the ranks that can answer: a stopped one would, once it goes on."""
        pids = {pulse.rank: self.ranks.pid(pulse.rank) for pulse in pulses if pulse.state not in {STOPPED, GONE}}
        return {rank: pid for rank, pid in pids.items() if pid is not None}

    def _keep(self, pulses: Sequence[Pulse], texts: Mapping[int, str]) -> str:
        files = [
            (self.report / f"stacks-{self.attempt}-{pulse.rank}.txt", self._page(pulse, texts.get(pulse.rank)))
            for pulse in pulses
        ]
        if keep(files):
            return f"stacks: {self.shown_report}/stacks-{self.attempt}-RANK.txt on the workspace"
        return "the stacks are in this pod's log, because the workspace did not take them"

    def _page(self, pulse: Pulse, text: str | None) -> str:
        pid = self.ranks.pid(pulse.rank)
        sleeping = waits_in(pid) if pid is not None else ""
        process = (
            f"process {pid} in state {pulse.state or '?'}" + (f", sleeping in {sleeping}" if sleeping else "")
            if pid is not None
            else "no process was found"
        )
        return (
            f"rank {pulse.rank}, {where(pulse)}, silent for {pulse.silent:.0f} s, at {datetime.now(UTC):%FT%TZ}\n"
            f"{process}\n{text or _silence(pulse)}\n"
        )


def _silence(pulse: Pulse) -> str:
    if pulse.state == STOPPED:
        return "A process that is stopped cannot tell its stacks."
    return "It did not tell its stacks: it had not come so far, had gone, or is stuck in the kernel."


def _lasting(pulse: Pulse, later: str) -> Pulse:
    """Every process is uninterruptible for a moment now and then: only one that still is, counts."""
    return replace(pulse, state=later) if pulse.state == UNINTERRUPTIBLE else pulse
