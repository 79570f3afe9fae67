"""What the launcher knows of its stage while it runs: the ranks' beats, and before the first one its own words."""

import math
import time
from pathlib import Path

from falcon_trainer.beats import read_beats
from falcon_trainer.layout import RUNTIME
from falcon_trainer.progress import PodProgress, Progress, RankProgress


class State:
    """Shared between the launcher's main thread, which writes, and the server's threads, which read."""

    def __init__(self, stage: str, run: str, first_rank: int = 0, directory: Path = RUNTIME) -> None:
        self.stage = stage
        self.run = run
        self._first_rank = first_rank
        self._directory = directory
        self._own = Progress(stage=stage, phase="start", rank=first_rank)

    def say(self, phase: str, message: str | None = None) -> None:
        """What goes on before the ranks speak for themselves."""
        self._own = Progress(stage=self.stage, phase=phase, rank=self._first_rank, message=message and message[:256])

    def snapshot(self) -> PodProgress:
        """The newest state; safe to call from any thread at any time."""
        now = time.time()
        ranks = [
            RankProgress.model_validate(_finite(beat) | {"since_beat_seconds": round(max(0.0, now - written), 3)})
            for _, (beat, written) in sorted(read_beats(self._directory).items())
        ]
        summary = Progress.model_validate(ranks[0].model_dump(exclude={"since_beat_seconds"})) if ranks else self._own
        return PodProgress(summary=summary, ranks=ranks)


def _finite(beat: Progress) -> dict[str, object]:
    """A diverged loss is no JSON number: it is left out."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in beat.model_dump().items()
    }
