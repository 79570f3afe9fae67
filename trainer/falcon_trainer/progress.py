"""What a running stage says of itself: written by the ranks as beats, served by the launcher on /progress."""

from pydantic import Field

from falcon_trainer.wire import Wire

MAX_NOTICES = 8
NOTICE_LIMIT = 512
"""Characters of one."""


class Notice(Wire):
    """Something that a person should hear of although the stage goes on; the operator makes an Event of it."""

    reason: str = Field(max_length=64, pattern=r"^[A-Z][A-Za-z]*$")
    message: str = Field(max_length=NOTICE_LIMIT)


class Progress(Wire):
    """One rank's position. Plain numbers: this is JSON between processes, not a custom resource.

    Who reads it over the network ignores unknown fields: an image may be newer than the operator that asks its pods.
    """

    stage: str = Field(max_length=16)
    phase: str = Field(max_length=32, description="load, train, save, verify, … : each has its own patience.")
    rank: int = Field(default=0, ge=0)
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    last_checkpoint_step: int | None = None
    resumed_from_step: int | None = Field(default=None, description="Step of the checkpoint that was loaded; 0: none.")
    evaluation_loss: float | None = Field(default=None, description="Of the newest evaluation.")
    best_step: int | None = Field(default=None, description="Step of the lowest evaluation loss so far.")
    notices: list[Notice] = Field(default=[], max_length=MAX_NOTICES)
    message: str | None = Field(default=None, max_length=256)


class RankProgress(Progress):
    """One rank's position as its launcher sees it."""

    since_beat_seconds: float = Field(ge=0, description="Age of the beat: grows while the rank says nothing.")


class PodProgress(Wire):
    """Body of a pod's /progress: its lowest rank's position (before the first beat the launcher's own words), and all
    ranks of the pod, at most 64 (gang.processesPerNode)."""

    summary: Progress
    ranks: list[RankProgress] = Field(max_length=64)
