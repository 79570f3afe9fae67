"""When a pod's ranks count as hung, and which of them is slow. Pure.

A training step is awaited for `gang.hangTimeout`, by default a multiple of the time that steps take. Every other phase
has a limit of its own, since its length has nothing to do with a step's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from falcon_trainer.launcher.pulse import Pulse

TRAIN = "train"
SAVE = "save"
BEFORE_TRAINING = frozenset({"start", "load", "data"})
STEP_MULTIPLE = 10
"""Of the median step: evaluation and saves have phases of their own, so steps are alike, but volumes and networks have
bad minutes."""
SLOW_MULTIPLE = 3
SLOW_FLOOR = 10.0

LIMITS: Mapping[str, float] = {
    # Without movement, in each phase.
    "start": 1800.0,  # imports, torchrun's rendezvous, NCCL's, and reading the last checkpoint
    "load": 3600.0,  # 360 GB of weights at 100 MB/s
    "data": 3600.0,
    "first-step": 1800.0,  # it compiles, allocates and connects, and no time was measured before it
    "step": 300.0,  # at least, however short steps are
    "evaluate": 1800.0,  # between two micro-batches, each of which beats
    "samples": 1800.0,
    SAVE: 1800.0,
    "other": 3600.0,  # a phase that this launcher does not know: the trainer may be newer
    # In a pod in which no rank stands out: that of the rank that hangs ends first and names it, and then this one has
    # lost a peer.
    "deference": 15.0,
    # See stopping.py.
    "quiet": 10.0,
    "nothing-to-save": 10.0,
    "farewell": 15.0,
    "exit": 60.0,
}
"""Seconds. FALCON_PATIENCE in the pod's environment replaces single ones: `load=7200,save=3600`."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long is waited for what."""

    hang_timeout: float | None = None
    """`gang.hangTimeout` in seconds."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Those that replace the ones in LIMITS."""

    def limit(self, name: str) -> float:
        """Seconds; a name that is unknown is a phase."""
        return self.limits.get(name, LIMITS.get(name, LIMITS["other"]))

    def of(self, phase: str, step_seconds: float | None) -> float:
        """Seconds for one phase. The configured time-out replaces a step's limit and lengthens the others: who awaits
        a step for an hour has a volume or a network that is as slow everywhere.
        """
        if phase != TRAIN:
            return max(self.limit(phase), self.hang_timeout or 0.0)
        if self.hang_timeout is not None:
            return self.hang_timeout
        if step_seconds is None:
            return self.limit("first-step")
        return max(self.limit("step"), STEP_MULTIPLE * step_seconds)


@dataclass(frozen=True, kw_only=True)
class Standstill:
    """The ranks of a pod that stood still for too long."""

    seconds: float
    limit: float
    phase: str
    step: int | None


@dataclass(frozen=True, kw_only=True)
class Hang:
    """Why a gang was ended as hung."""

    message: str
    rank: int | None
    step: int | None


def standstill(pulses: Sequence[Pulse], patience: Patience, step_seconds: float | None) -> Standstill | None:
    """Whether the ranks are hung; None while one of them may still be at work.

    Ranks wait for each other: one that evaluates, saves or loads may keep another waiting in its step, so the most
    patient phase among them counts, and the last movement of any. But a stopped rank is not at work, whatever it said
    last.
    """
    working = [pulse for pulse in pulses if not pulse.ended]
    if not working:
        return None
    limit = patience.of(TRAIN, step_seconds)
    for pulse in working:
        if pulse.stopped is not None and pulse.stopped > limit:
            return Standstill(seconds=pulse.stopped, limit=limit, phase=pulse.phase, step=pulse.step)
    slowest = max(working, key=lambda pulse: patience.of(pulse.phase, step_seconds))
    limit, seconds = patience.of(slowest.phase, step_seconds), min(quiet(pulse) for pulse in working)
    if seconds <= limit:
        return None
    return Standstill(seconds=seconds, limit=limit, phase=slowest.phase, step=slowest.step)


def quiet(pulse: Pulse) -> float:
    """Seconds that count against a rank: in training since its last step, elsewhere since its last word."""
    return pulse.still if pulse.phase == TRAIN else pulse.silent


def slow(pulses: Sequence[Pulse], step_seconds: float | None) -> str | None:
    """The rank that the others seem to wait for, as a sentence for the status; None while all goes well."""
    working = [pulse for pulse in pulses if not pulse.ended]
    for pulse in working:
        if pulse.stopped is not None:
            return f"rank {pulse.rank} is stopped (SIGSTOP) for {pulse.stopped:.0f} s, {where(pulse)}"
    training = [pulse for pulse in working if pulse.phase == TRAIN and pulse.step is not None]
    if not training or step_seconds is None:
        return None
    seconds = min(pulse.still for pulse in training)
    if seconds <= max(SLOW_FLOOR, SLOW_MULTIPLE * step_seconds):
        return None
    last = min(training, key=lambda pulse: (pulse.step or 0, -pulse.still))
    foremost = max(pulse.step or 0 for pulse in training)
    if last.step != foremost:
        return f"rank {last.rank} is behind, at step {last.step} of {foremost}, for {last.still:.0f} s"
    return f"no step has ended for {seconds:.0f} s; steps take {step_seconds:.1f} s"


def where(pulse: Pulse) -> str:
    """A rank's place as it told it last."""
    return f"in phase {pulse.phase}" + ("" if pulse.step is None else f" after step {pulse.step}")
