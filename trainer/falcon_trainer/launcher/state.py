"""What the launcher knows of its stage while it runs: the ranks' beats, and before the first one its own words."""

import math
import threading
from collections.abc import Mapping
from pathlib import Path

from falcon_trainer.beats import Beat, read_beats
from falcon_trainer.endings import Ending, read_endings
from falcon_trainer.launcher.pulse import Pulse, Pulses
from falcon_trainer.layout import RUNTIME
from falcon_trainer.progress import PodProgress, Progress, RankProgress

LONGEST = 256
"""Characters of a message in Progress."""


class State:
    """Shared between the launcher's main thread and the server's threads; each may look at any time."""

    def __init__(self, stage: str, run: str, ranks: range = range(1), directory: Path = RUNTIME) -> None:
        """`ranks`: those of this pod."""
        self.stage = stage
        self.run = run
        self.remark: str | None = None
        """What the launcher notices of the ranks: told before what they say themselves, which may be old by then."""
        self.endings: dict[int, Ending] = {}
        """The ranks that have told how they ended, at the last look."""
        self._directory = directory
        self._own = Progress(stage=stage, phase="start", rank=ranks.start)
        self._lock = threading.Lock()
        self._pulses = Pulses(ranks)
        self._beats: dict[int, Beat] = {}

    def say(self, phase: str, message: str | None = None) -> None:
        """What goes on before the ranks speak for themselves."""
        self._own = self._own.model_copy(update={"phase": phase, "message": message and message[:LONGEST]})

    def look(self, states: Mapping[int, str] | None = None) -> list[Pulse]:
        """The ranks' pulses; `states` of their processes, where somebody has looked at these."""
        with self._lock:
            self._beats, self.endings = read_beats(self._directory), read_endings(self._directory)
            return self._pulses.look(self._beats, self.endings, states)

    def watch(self, _stage: int, _since_stop: float | None) -> None:
        """Looks, for stages that are never ended for what is seen."""
        self.look()

    @property
    def step_seconds(self) -> float | None:
        """How long a step takes; None before one was seen."""
        with self._lock:
            return self._pulses.step_seconds

    def snapshot(self) -> PodProgress:
        """The newest state."""
        silent = {pulse.rank: pulse.silent for pulse in self.look()}
        ranks = [
            RankProgress.model_validate(_finite(beat.progress) | {"since_beat_seconds": round(silent[rank], 3)})
            for rank, beat in sorted(self._beats.items())
            if rank in silent
        ]
        return PodProgress(summary=self._summary(ranks), ranks=ranks)

    def _summary(self, ranks: list[RankProgress]) -> Progress:
        if not ranks:
            return self._own
        told = Progress.model_validate(ranks[0].model_dump(exclude={"since_beat_seconds"}))
        said = "; ".join(filter(None, (self.remark, told.message)))
        return told.model_copy(update={"message": said[:LONGEST] or None})


def _finite(beat: Progress) -> dict[str, object]:
    """A diverged loss is no JSON number: it is left out."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in beat.model_dump().items()
    }
