"""One outcome for the pod, out of what its ranks said and how they died. Pure."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from falcon_trainer.endings import Ending
from falcon_trainer.faults import speaks_of_lost_peer
from falcon_trainer.launcher.hang import Hang
from falcon_trainer.launcher.processes import Ended
from falcon_trainer.outcome import ExitCode, Outcome
from falcon_trainer.progress import Progress

TAIL_LINES = 12
TAIL_CHARACTERS = 2000


class Kind(IntEnum):
    """Kinds of failure, the most telling first. A killed rank explains the exceptions of its peers, and a stop explains
    crashes while stopping."""

    UNDERSTOOD = 0
    NO_MEMORY = 1
    HUNG = 2
    KILLED = 3
    STOPPED = 4
    CRASHED = 5
    FOLLOWED = 6
    UNEXPLAINED = 7


TOLD = {"Stopped": Kind.STOPPED, "InternalError": Kind.CRASHED, "RankLost": Kind.FOLLOWED}
"""Reasons that explain little: any other that a rank gives is understood."""
CODES = {Kind.STOPPED: ExitCode.STOPPED, Kind.FOLLOWED: ExitCode.TRY_AGAIN, Kind.HUNG: ExitCode.TRY_AGAIN}
"""Exit codes of what is concluded; any other kind is INTERNAL."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known when the stage's processes are gone."""

    stage: str
    local_ranks: range
    ended: Ended
    endings: Mapping[int, Ending] = field(default_factory=dict)
    deaths: Mapping[int, int] = field(default_factory=dict)
    """Exit codes by rank, from torchrun; negative: a signal."""
    oom_kills: int = 0
    """Kills for want of memory in this pod's cgroup since the stage began."""
    memory_limit: int | None = None
    tail: Sequence[str] = ()
    beats: Mapping[int, Progress] = field(default_factory=dict)
    """The last one of each rank."""
    hang: Hang | None = None
    """Why the launcher ended the gang as hung."""
    killed: frozenset[int] = frozenset()
    """Ranks that the launcher killed because another one had failed: their deaths are no causes."""


@dataclass(frozen=True, order=True)
class _Candidate:
    """Sorted so that the most telling comes first: by kind of failure, then the earliest, then the lowest rank."""

    kind: Kind
    time: float
    rank: int
    code: int = field(compare=False)
    outcome: Outcome = field(compare=False)


def judge(evidence: Evidence) -> tuple[ExitCode, Outcome]:
    """Exit code and outcome of the pod.

    Success only where every local rank says so itself, whatever the exit code of torchrun: work that is finished is not
    lost to a crash while the interpreter is taken down, and a child that just exits with 0 has not finished anything.
    """
    done = [evidence.endings.get(rank) for rank in evidence.local_ranks]
    if all(ending is not None and ending.code == ExitCode.OK for ending in done):
        return ExitCode.OK, _success(evidence)
    first = min(_candidates(evidence))
    return ExitCode(first.code), first.outcome.model_copy(update={"last_checkpoint_step": _newest_checkpoint(evidence)})


def _success(evidence: Evidence) -> Outcome:
    if 0 in evidence.local_ranks:
        return evidence.endings[0].outcome
    return Outcome(reason="Completed", message=f"{evidence.stage} completed; rank 0's pod tells the result")


def _candidates(evidence: Evidence) -> Iterator[_Candidate]:
    for ending in evidence.endings.values():
        if ending.code != ExitCode.OK:
            yield _told(ending)
    for rank in evidence.local_ranks:
        code = evidence.deaths.get(rank, 0) if evidence.stage == "train" else evidence.ended.returncode
        if code != 0 and rank not in evidence.endings and rank not in evidence.killed:
            yield _died(evidence, rank, code)
    if evidence.hang is not None:
        yield _hung(evidence, evidence.hang)
    if evidence.ended.stop_requested:
        yield _stopped(evidence)
    yield _unexplained(evidence)


def _told(ending: Ending) -> _Candidate:
    kind = TOLD.get(ending.outcome.reason, Kind.UNDERSTOOD)
    return _Candidate(kind, ending.time, ending.rank, ending.code, ending.outcome)


def _died(evidence: Evidence, rank: int, code: int) -> _Candidate:
    """What a rank that left no ending died of."""
    who = f"rank {rank}" if evidence.stage == "train" else f"the {evidence.stage} process"
    if code == -signal.SIGKILL and evidence.oom_kills > 0:
        return _of(evidence, Kind.NO_MEMORY, "OutOfMemory", _memory_sentence(evidence, who), rank)
    if code == -signal.SIGTERM and evidence.stage == "train":
        # torchrun ends the other ranks with it after the first failure
        return _of(evidence, Kind.FOLLOWED, "RankLost", f"{who} was ended because another rank failed", rank)
    if code == -signal.SIGABRT and speaks_of_lost_peer("\n".join(evidence.tail)):
        # NCCL's watchdog and gloo's threads abort the process instead of raising an exception.
        return _of(evidence, Kind.FOLLOWED, "RankLost", _with_tail(f"{who} lost another rank", evidence), rank)
    if code < 0 and not _by_us(evidence, code):
        return _of(
            evidence, Kind.KILLED, "Killed", _with_tail(f"{who} was killed by {_signal_name(-code)}", evidence), rank
        )
    said = _with_tail(f"{who} ended with exit code {code} and did not say why", evidence)
    return _of(evidence, Kind.CRASHED, "InternalError", said, rank)


def _by_us(evidence: Evidence, code: int) -> bool:
    """Whether a death by signal is our own doing: SIGTERM passed on, SIGKILL where there was no more to wait for."""
    ended = evidence.ended
    if code == -signal.SIGKILL:
        return ended.cut is not None
    return ended.stop_requested and code == -signal.SIGTERM


def _stopped(evidence: Evidence) -> _Candidate:
    said = f"{evidence.stage} {evidence.ended.cut or 'was stopped on request'}"
    if evidence.stage == "train":
        said += f"; {_saved(evidence)}"
    return _of(evidence, Kind.STOPPED, "Stopped", said, None)


def _newest_checkpoint(evidence: Evidence) -> int | None:
    """Its step. Who asks a pod how far it is now and then may have missed the last one."""
    steps = (beat.last_checkpoint_step for beat in evidence.beats.values())
    return max((step for step in steps if step is not None), default=None)


def _saved(evidence: Evidence) -> str:
    """Whether the next attempt has to repeat steps."""
    steps = [beat.step for beat in evidence.beats.values() if beat.step is not None]
    saved = _newest_checkpoint(evidence)
    if not steps:
        return "training had not begun"
    if saved is None:
        return f"step {max(steps)} is lost: nothing was saved yet" if max(steps) else "no step was done yet"
    if saved >= max(steps):
        return f"the last step, {max(steps)}, is saved"
    return f"step {max(steps)} is not saved: the newest checkpoint is of step {saved}"


def _hung(evidence: Evidence, hang: Hang) -> _Candidate:
    message = hang.message
    if evidence.oom_kills > 0:
        message += ". Meanwhile a process of this pod was killed for want of memory: a rank may wait for it"
    candidate = _of(evidence, Kind.HUNG, "Hung", message, hang.rank)
    return replace(candidate, outcome=candidate.outcome.model_copy(update={"step": hang.step}))


def _unexplained(evidence: Evidence) -> _Candidate:
    """What the stage's main process (torchrun, for train) died of, when that is all there is."""
    code = evidence.ended.returncode
    who = f"the {evidence.stage} process"
    if code < 0 and not _by_us(evidence, code):
        if code == -signal.SIGKILL and evidence.oom_kills > 0:
            return _of(evidence, Kind.NO_MEMORY, "OutOfMemory", _memory_sentence(evidence, who), None)
        return _of(
            evidence, Kind.KILLED, "Killed", _with_tail(f"{who} was killed by {_signal_name(-code)}", evidence), None
        )
    said = _with_tail(f"{who} ended with exit code {code} and did not say why", evidence)
    return _of(evidence, Kind.UNEXPLAINED, "InternalError", said, None)


def _of(evidence: Evidence, kind: Kind, reason: str, message: str, rank: int | None) -> _Candidate:
    steps = {number: beat.step for number, beat in evidence.beats.items() if beat.step is not None}
    step = max(steps.values(), default=None) if rank is None else steps.get(rank)
    outcome = Outcome(reason=reason, message=message, retryable=True, step=step, rank=rank)
    # What is concluded has no time of its own: within a kind, ranks that spoke come first, then ranks in order.
    order = len(evidence.local_ranks) + min(evidence.local_ranks) if rank is None else rank
    return _Candidate(kind, float("inf"), order, CODES.get(kind, ExitCode.INTERNAL), outcome)


def _memory_sentence(evidence: Evidence, who: str) -> str:
    limit = evidence.memory_limit
    what = f"the pod's memory limit of {limit / 2**30:.2f} GiB" if limit else "the memory of its node"
    advice = {
        "train": "use more nodes (ZeRO-3 spreads the model over them), or training.deepspeed.offloadParameters and "
        "offloadOptimizer: none, which keep the state in GPU memory",
        "serve": "give the serve pod memory for the whole merged model and its key-value cache",
    }.get(evidence.stage, "")
    return (
        f"{who} was killed because {what} was used up. Raise resources.limits.memory in "
        f"podTemplate.{evidence.stage}" + (f", or {advice}" if advice else "")
    )


def _with_tail(sentence: str, evidence: Evidence) -> str:
    last = "\n".join(evidence.tail[-TAIL_LINES:])[-TAIL_CHARACTERS:]
    whose = "the last lines of this pod's ranks" if evidence.stage == "train" else "its last lines"
    return f"{sentence}; {whose} were:\n{last}" if last else sentence


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
