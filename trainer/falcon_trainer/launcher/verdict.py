"""One outcome for the pod, out of what its ranks said and how they died. Pure."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from falcon_trainer.endings import Ending
from falcon_trainer.faults import speaks_of_lost_peer
from falcon_trainer.launcher.processes import Ended
from falcon_trainer.outcome import ExitCode, Outcome

TAIL_LINES = 12
TAIL_CHARACTERS = 2000


class Kind(IntEnum):
    """Kinds of failure, the most telling first. A killed rank explains the exceptions of its peers, and a stop explains
    crashes while stopping."""

    UNDERSTOOD = 0
    NO_MEMORY = 1
    KILLED = 2
    STOPPED = 3
    CRASHED = 4
    FOLLOWED = 5
    UNEXPLAINED = 6


TOLD = {"Stopped": Kind.STOPPED, "InternalError": Kind.CRASHED, "RankLost": Kind.FOLLOWED}
"""Reasons that explain little: any other that a rank gives is understood."""
CODES = {Kind.STOPPED: ExitCode.STOPPED, Kind.FOLLOWED: ExitCode.TRY_AGAIN}
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
    steps: Mapping[int, int] = field(default_factory=dict)
    """The last step in each rank's beat."""


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
    return ExitCode(first.code), first.outcome


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
        if code != 0 and rank not in evidence.endings:
            yield _died(evidence, rank, code)
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
    if code < 0 and not _by_stop(evidence, code):
        return _of(
            evidence, Kind.KILLED, "Killed", _with_tail(f"{who} was killed by {_signal_name(-code)}", evidence), rank
        )
    said = _with_tail(f"{who} ended with exit code {code} and did not say why", evidence)
    return _of(evidence, Kind.CRASHED, "InternalError", said, rank)


def _by_stop(evidence: Evidence, code: int) -> bool:
    """Whether a death by signal is our own doing: SIGTERM passed on, SIGKILL after the grace period."""
    ended = evidence.ended
    return ended.stop_requested and (code == -signal.SIGTERM or (code == -signal.SIGKILL and ended.overran))


def _stopped(evidence: Evidence) -> _Candidate:
    how = "did not end within its grace period and was killed" if evidence.ended.overran else "was stopped on request"
    return _of(evidence, Kind.STOPPED, "Stopped", f"{evidence.stage} {how}", None)


def _unexplained(evidence: Evidence) -> _Candidate:
    """What the stage's main process (torchrun, for train) died of, when that is all there is."""
    code = evidence.ended.returncode
    who = f"the {evidence.stage} process"
    if code == -signal.SIGKILL and evidence.oom_kills > 0:
        return _of(evidence, Kind.NO_MEMORY, "OutOfMemory", _memory_sentence(evidence, who), None)
    if code < 0 and not _by_stop(evidence, code):
        return _of(
            evidence, Kind.KILLED, "Killed", _with_tail(f"{who} was killed by {_signal_name(-code)}", evidence), None
        )
    said = _with_tail(f"{who} ended with exit code {code} and did not say why", evidence)
    return _of(evidence, Kind.UNEXPLAINED, "InternalError", said, None)


def _of(evidence: Evidence, kind: Kind, reason: str, message: str, rank: int | None) -> _Candidate:
    step = max(evidence.steps.values(), default=None) if rank is None else evidence.steps.get(rank)
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
    return f"{sentence}; its last lines were:\n{last}" if last else sentence


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
