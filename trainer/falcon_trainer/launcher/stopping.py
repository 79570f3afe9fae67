"""When ranks that should leave need not be waited for any longer. Pure.

After SIGTERM all ranks agree at the end of a step, save, and leave. Where the peers are gone no step ends any more, and
NCCL takes minutes to notice: the measured step time tells sooner (`quiet`, at least). Ranks that have not finished a
step since they started have `nothing-to-save`: the checkpoint that they came from is the newest.

After one rank's failure the others can only say what they saw, and leave: `farewell` is less than the 30 s after which
torchrun would kill those that are stuck in a collective, as if each had failed by itself. And when all ranks have told
how they ended, destructors and torchrun's barrier may still hang: `exit`.
"""

from collections.abc import Mapping, Sequence

from falcon_trainer.endings import Ending
from falcon_trainer.launcher.hang import BEFORE_TRAINING, SAVE, TRAIN, Patience
from falcon_trainer.launcher.pulse import GONE, Pulse
from falcon_trainer.outcome import ExitCode

QUIET_MULTIPLE = 3
"""Steps that did not end although there was time for them."""


def beyond_saving(
    pulses: Sequence[Pulse], patience: Patience, step_seconds: float | None, since_stop: float
) -> str | None:
    """Why nothing more can be saved `since_stop` seconds after SIGTERM; None while it may be. Saves and evaluations
    have all of the grace period.
    """
    working = [pulse for pulse in pulses if not pulse.ended]
    if not working or any(pulse.phase not in BEFORE_TRAINING | {TRAIN} for pulse in working):
        return None
    if step_seconds is None:
        if since_stop <= patience.limit("nothing-to-save"):
            return None
        return f"was killed {since_stop:.0f} s after SIGTERM: no step has ended since it started"
    seconds = min(since_stop, *(pulse.still for pulse in working))
    if seconds <= max(patience.limit("quiet"), QUIET_MULTIPLE * step_seconds):
        return None
    stopped = [f"rank {pulse.rank} is stopped (SIGSTOP)" for pulse in working if pulse.stopped is not None]
    return (
        f"was killed because no step has ended for {seconds:.0f} s after SIGTERM, though steps take "
        f"{step_seconds:.1f} s: {', '.join(stopped) or 'the rest of the gang is gone or hangs'}"
    )


def failed(pulses: Sequence[Pulse], endings: Mapping[int, Ending]) -> bool:
    """Whether a rank will not come back: it has told a failure, or its process is gone and it told nothing. One that
    was stopped on request is no failure: the others may still be saving.
    """
    told = any(ending.code not in {ExitCode.OK, ExitCode.STOPPED} for ending in endings.values())
    return told or any(pulse.state == GONE and not pulse.ended for pulse in pulses)


def stayed(pulses: Sequence[Pulse]) -> set[int]:
    """Ranks whose processes are still there, but not those that write a last checkpoint."""
    there = [pulse for pulse in pulses if pulse.state not in {"", GONE}]
    return {pulse.rank for pulse in there if pulse.ended or pulse.phase != SAVE}
