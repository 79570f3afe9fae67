"""Which of several failures becomes the pod's outcome."""

import signal
from dataclasses import dataclass, field

import pytest

from falcon_trainer.endings import Ending
from falcon_trainer.launcher.hang import Hang
from falcon_trainer.launcher.processes import Ended
from falcon_trainer.launcher.verdict import Evidence, judge
from falcon_trainer.outcome import ExitCode, Outcome
from falcon_trainer.progress import Progress

KILL, TERM, ABORT = -signal.SIGKILL, -signal.SIGTERM, -signal.SIGABRT
FAILED = Ended(returncode=1, stop_requested=False)
STOPPED = Ended(returncode=1, stop_requested=True)
OVERRAN = Ended(returncode=KILL, stop_requested=True, cut="did not end within its grace period of 3 s and was killed")
CUT = Ended(returncode=KILL, stop_requested=False, cut="was ended as hung")
HANG = Hang(message="Rank 1 is stopped", rank=1, step=4)
NCCL = "[rank3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE)"


def told(rank: int, code: int, reason: str, time: float = 1.0) -> Ending:
    outcome = Outcome(reason=reason, message=f"{reason} of rank {rank}", rank=rank, result={"of": rank})
    return Ending(rank=rank, code=code, time=time, outcome=outcome)


def at(step: int | None, saved: int | None = None) -> Progress:
    return Progress(stage="train", phase="train", step=step, last_checkpoint_step=saved)


def done(rank: int) -> Ending:
    return told(rank, 0, "Completed")


@dataclass(frozen=True, kw_only=True)
class Case:
    ranks: range = range(2)
    stage: str = "train"
    ended: Ended = FAILED
    endings: tuple[Ending, ...] = ()
    deaths: dict[int, int] = field(default_factory=dict)
    oom_kills: int = 0
    tail: tuple[str, ...] = ()
    hang: Hang | None = None
    killed: frozenset[int] = frozenset()
    expected: tuple[int, str, int | None]
    """Exit code, reason, rank."""


CASES = {
    "all ranks completed": Case(endings=(done(0), done(1)), ended=Ended(0, False), expected=(0, "Completed", 0)),
    "all ranks completed, then torchrun failed at its barrier": Case(
        endings=(done(0), done(1)), expected=(0, "Completed", 0)
    ),
    "all ranks completed although a stop was requested": Case(
        endings=(done(0), done(1)), ended=STOPPED, expected=(0, "Completed", 0)
    ),
    "all ranks of a pod without rank 0 completed": Case(
        ranks=range(2, 4), endings=(done(2), done(3)), expected=(0, "Completed", None)
    ),
    "torchrun says success but a rank said nothing": Case(
        endings=(done(0),), ended=Ended(0, False), expected=(70, "InternalError", None)
    ),
    "an understood error beats a peer that lost it": Case(
        endings=(told(0, 75, "RankLost", 1.0), told(1, 73, "DiskFull", 2.0)), expected=(73, "DiskFull", 1)
    ),
    "an understood error beats a crash that came first": Case(
        endings=(told(0, 70, "InternalError", 1.0), told(1, 65, "BrokenRow", 2.0)), expected=(65, "BrokenRow", 1)
    ),
    "an understood error beats the stop that came while it was winding down": Case(
        endings=(told(0, 73, "DiskFull"),), ended=STOPPED, expected=(73, "DiskFull", 0)
    ),
    "of two understood errors the first one counts": Case(
        endings=(told(0, 65, "BrokenRow", 9.0), told(1, 73, "DiskFull", 3.0)), expected=(73, "DiskFull", 1)
    ),
    "of two at the same time the lowest rank counts": Case(
        endings=(told(1, 65, "B"), told(0, 65, "A")), expected=(65, "A", 0)
    ),
    "a lost peer is all that is known: the other pod died": Case(
        endings=(told(0, 75, "RankLost"), told(1, 75, "RankLost")), expected=(75, "RankLost", 0)
    ),
    "a rank killed for memory beats the exceptions of its peers": Case(
        endings=(told(0, 70, "InternalError"),), deaths={0: 70, 1: KILL}, oom_kills=1, expected=(70, "OutOfMemory", 1)
    ),
    "a rank killed by a signal beats the exceptions of its peers": Case(
        endings=(told(0, 75, "RankLost"),), deaths={0: 75, 1: -signal.SIGSEGV}, expected=(70, "Killed", 1)
    ),
    "a rank that torchrun ended is not the cause": Case(
        endings=(told(0, 70, "InternalError"),), deaths={0: 70, 1: TERM}, expected=(70, "InternalError", 0)
    ),
    "a rank that only torchrun ended, the cause in another pod": Case(deaths={1: TERM}, expected=(75, "RankLost", 1)),
    "a rank that NCCL's watchdog aborted lost its peer": Case(
        deaths={0: ABORT}, tail=(NCCL,), expected=(75, "RankLost", 0)
    ),
    "a rank that aborted for reasons of its own": Case(
        deaths={0: ABORT}, tail=("free(): invalid pointer",), expected=(70, "Killed", 0)
    ),
    "a rank that exits with a code of its own": Case(deaths={1: 3}, expected=(70, "InternalError", 1)),
    "a stop explains torchrun's failure": Case(ended=STOPPED, expected=(143, "Stopped", None)),
    "a stop explains crashes and lost peers while stopping": Case(
        endings=(told(0, 70, "InternalError"), told(1, 75, "RankLost")), ended=STOPPED, expected=(143, "Stopped", None)
    ),
    "a stop that one rank finished and the other did not": Case(
        endings=(done(0),), ended=STOPPED, expected=(143, "Stopped", None)
    ),
    "a stop that overran its grace period": Case(ended=OVERRAN, expected=(143, "Stopped", None)),
    "a hang, ended by the launcher": Case(ended=CUT, hang=HANG, expected=(75, "Hung", 1)),
    "a hang beats the rank that lost the one that hangs": Case(
        ended=CUT, hang=HANG, endings=(told(0, 75, "RankLost"),), expected=(75, "Hung", 1)
    ),
    "an error that a rank told explains the hang of the others": Case(
        ended=CUT, hang=HANG, endings=(told(0, 73, "DiskFull"),), expected=(73, "DiskFull", 0)
    ),
    "a hang in which a helper of a rank was killed for memory is still a hang": Case(
        ended=CUT, hang=HANG, oom_kills=1, expected=(75, "Hung", 1)
    ),
    "a rank that the launcher killed because another one had failed is not the cause": Case(
        deaths={0: KILL, 1: 70},
        endings=(told(1, 70, "InternalError"),),
        killed=frozenset({0}),
        expected=(70, "InternalError", 1),
    ),
    "ranks that ended well and would not leave": Case(
        ended=CUT, endings=(done(0), done(1)), expected=(0, "Completed", 0)
    ),
    "torchrun itself killed for memory": Case(
        ended=Ended(KILL, False), oom_kills=1, expected=(70, "OutOfMemory", None)
    ),
    "torchrun itself killed": Case(ended=Ended(KILL, False), expected=(70, "Killed", None)),
    "a stage that died of our SIGTERM": Case(
        stage="merge", ranks=range(1), ended=Ended(TERM, True), expected=(143, "Stopped", None)
    ),
    "a stage that somebody else sent SIGTERM": Case(
        stage="merge", ranks=range(1), ended=Ended(TERM, False), expected=(70, "Killed", 0)
    ),
    "a stage killed for memory": Case(
        stage="merge", ranks=range(1), ended=Ended(KILL, False), oom_kills=1, expected=(70, "OutOfMemory", 0)
    ),
    "a stage that says itself that it was stopped": Case(
        stage="serve", ranks=range(1), ended=STOPPED, endings=(told(0, 143, "Stopped"),), expected=(143, "Stopped", 0)
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_most_telling_failure_is_the_outcome(case: Case) -> None:
    code, outcome = judge(_evidence(case))
    assert (code, outcome.reason, outcome.rank) == case.expected
    if case.ranks.start > 0 and code == 0:
        assert outcome.result is None


def _evidence(case: Case) -> Evidence:
    return Evidence(
        stage=case.stage,
        local_ranks=case.ranks,
        ended=case.ended,
        endings={ending.rank: ending for ending in case.endings},
        deaths=case.deaths,
        oom_kills=case.oom_kills,
        tail=case.tail,
        hang=case.hang,
        killed=case.killed,
    )


def test_what_is_concluded_tells_the_last_step_the_last_words_and_can_be_tried_again() -> None:
    case = Case(deaths={1: -signal.SIGBUS}, tail=("first", "last"), expected=(70, "Killed", 1))
    code, outcome = judge(Evidence(**{**vars(_evidence(case)), "beats": {0: at(11), 1: at(12)}}))
    assert code == ExitCode.INTERNAL
    assert outcome.message == "rank 1 was killed by SIGBUS; the last lines of this pod's ranks were:\nfirst\nlast"
    assert (outcome.step, outcome.retryable) == (12, True)


def test_the_end_of_a_pod_tells_its_newest_checkpoint_whoever_explains_the_end() -> None:
    case = Case(endings=(told(1, 73, "DiskFull"),), expected=(73, "DiskFull", 1))
    _, outcome = judge(Evidence(**{**vars(_evidence(case)), "beats": {0: at(12, 10), 1: at(12, 9)}}))
    assert outcome.last_checkpoint_step == 10


SAVED: dict[str, tuple[dict[int, Progress], str]] = {
    "the last step": ({0: at(12, 12), 1: at(12, 12)}, "the last step, 12, is saved"),
    "an earlier one": ({0: at(12, 10), 1: at(12, 10)}, "step 12 is not saved: the newest checkpoint is of step 10"),
    "nothing": ({0: at(3)}, "step 3 is lost: nothing was saved yet"),
    "nothing was done": ({0: at(0)}, "no step was done yet"),
    "the ranks still loaded": ({0: at(None)}, "training had not begun"),
    "the ranks had not spoken": ({}, "training had not begun"),
}


@pytest.mark.parametrize(("beats", "expected"), SAVED.values(), ids=SAVED)
@pytest.mark.parametrize("ended", [STOPPED, OVERRAN], ids=["on request", "killed"])
def test_a_stop_tells_whether_steps_are_lost(ended: Ended, beats: dict[int, Progress], expected: str) -> None:
    _, outcome = judge(Evidence(stage="train", local_ranks=range(2), ended=ended, beats=beats))
    assert outcome.message == f"train {ended.cut or 'was stopped on request'}; {expected}"


def test_a_hang_tells_its_step_and_of_memory_that_ran_out_meanwhile() -> None:
    case = Case(ended=CUT, hang=HANG, oom_kills=1, expected=(75, "Hung", 1))
    _, outcome = judge(Evidence(**{**vars(_evidence(case)), "beats": {0: at(5), 1: at(5)}}))
    assert (outcome.step, outcome.retryable) == (4, True)
    assert outcome.message.startswith(
        "Rank 1 is stopped. Meanwhile a process of this pod was killed for want of memory"
    )


@pytest.mark.parametrize("stage", ["prepare", "train", "merge", "serve"])
def test_an_out_of_memory_kill_names_the_limit_and_what_to_change(stage: str) -> None:
    case = Case(stage=stage, ranks=range(1), ended=Ended(KILL, False), oom_kills=1, expected=(70, "OutOfMemory", None))
    _, outcome = judge(Evidence(**{**vars(_evidence(case)), "memory_limit": 3 * 2**30}))
    assert "3.00 GiB" in outcome.message
    assert f"podTemplate.{stage}" in outcome.message
