"""The failure table, through both halves of the product: what goes wrong in a pod or around it, the reason and the
advice that the run's status gives, and whether the gang is tried again at the cost of a restart.
"""

import errno
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import errors

from falcon_operator.objects import Object
from falcon_operator.policy.failure import of_pod
from falcon_operator.policy.restart import decide
from falcon_operator.policy.waiting import problem
from falcon_trainer.faults import understand
from falcon_trainer.hub import Repository, explained
from falcon_trainer.launcher.hang import Hang
from falcon_trainer.launcher.processes import Ended
from falcon_trainer.launcher.verdict import Evidence, judge
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.told import read_config
from tests.unit.operator.policy.pods import NOW, deleted, disrupted, ended, pod, unschedulable, waiting

AGAIN, AT_A_COST, NEVER = "again for nothing", "again at the cost of a restart", "never by itself"


@dataclass(frozen=True)
class Row:
    """One row: the pod, and what is made of it."""

    pod: Callable[[], Object]
    reason: str
    advice: str
    """Words of the message."""
    rule: str


class OutOfMemoryError(RuntimeError):
    """As torch calls it; torch itself is not needed to be understood."""


def raising(error: BaseException, stage: str = "train") -> Callable[[], Object]:
    """A pod whose stage ended with this exception."""
    meant = understand(error, stage)
    return lambda: ended("p", meant.code, meant.outcome(rank=0))


def judged(**evidence: object) -> Callable[[], Object]:
    """A pod of two ranks that its launcher judged."""
    found = Evidence(stage="train", local_ranks=range(2), ended=Ended(1, False), **evidence)  # type: ignore[arg-type]
    code, outcome = judge(found)
    return lambda: ended("p", code, outcome)


def of_the_hub(error: Exception) -> Callable[[], Object]:
    """A prepare pod that the Hub answered so."""
    model = Repository("Model", "tiiuae/falcon-180B", "main", "model.source", "model.revision")
    with pytest.raises(StageError) as told, explained(model):
        raise error
    return raising(told.value, "prepare")


def gated() -> errors.GatedRepoError:
    error = errors.GatedRepoError.__new__(errors.GatedRepoError)
    Exception.__init__(error, "403 Client Error")
    return error


def misconfigured(folder: Path) -> Callable[[], Object]:
    """A pod whose configuration was written by hand, and badly."""
    (folder / "run.json").write_text('{"run": "r", "namespace": "n", "model": {"source": 7}}')
    with pytest.raises(StageError) as told:
        read_config(folder / "run.json")
    return raising(told.value)


ROWS: dict[str, Row] = {
    "out of GPU memory": Row(
        raising(OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        "OutOfGpuMemory",
        "Lower training.microBatchSize",
        AT_A_COST,
    ),
    "a rank killed for memory": Row(
        judged(deaths={1: -signal.SIGKILL}, oom_kills=1, memory_limit=2**30),
        "OutOfMemory",
        "Raise resources.limits.memory in podTemplate.train",
        AT_A_COST,
    ),
    "the whole container killed for memory": Row(
        lambda: ended("p", 137, reason="OOMKilled"),
        "OutOfMemory",
        "raise podTemplate.train.resources.limits.memory",
        AT_A_COST,
    ),
    "disk full": Row(
        raising(OSError(errno.ENOSPC, "No space left on device", "/workspace/runs/r")),
        "DiskFull",
        "make the volume larger",
        NEVER,
    ),
    "disk full, told by safetensors": Row(
        raising(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")),
        "DiskFull",
        "make the volume larger",
        NEVER,
    ),
    "NCCL time-out": Row(
        raising(RuntimeError("[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)")),
        "RankLost",
        "another rank of the gang went away or stopped answering",
        AT_A_COST,
    ),
    "gloo time-out": Row(
        raising(RuntimeError("[unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation to complete")),
        "RankLost",
        "another rank of the gang went away or stopped answering",
        AT_A_COST,
    ),
    "rank lost": Row(
        raising(RuntimeError("Connection closed by peer [10.0.0.7]:40131")),
        "RankLost",
        "Connection closed by peer",
        AT_A_COST,
    ),
    "rank killed": Row(judged(deaths={0: 70, 1: -signal.SIGKILL}), "Killed", "rank 1 was killed by SIGKILL", AT_A_COST),
    "hub unreachable": Row(
        of_the_hub(ConnectionError("no route to host")), "HubUnavailable", "put the model on a claim", AT_A_COST
    ),
    "gated model": Row(of_the_hub(gated()), "ModelGated", "accept its terms", NEVER),
    "bad data": Row(
        raising(StageError(ExitCode.DATA, "InvalidRecord", "data.jsonl, line 2: the field response is missing")),
        "InvalidRecord",
        "line 2",
        NEVER,
    ),
    "evicted": Row(lambda: disrupted(deleted(pod("p")), "EvictionByEvictionAPI"), "Evicted", "drain", AGAIN),
    "evicted for its own limits": Row(
        lambda: pod("p", "Failed", reason="Evicted", message="Usage of EmptyDir volume exceeds the limit 1Gi."),
        "OverItsLimits",
        "Raise that limit in podTemplate",
        AT_A_COST,
    ),
    "preempted": Row(
        lambda: disrupted(deleted(pod("p")), "PreemptionByScheduler"), "Preempted", "higher priority", AGAIN
    ),
    "node lost": Row(
        lambda: disrupted(deleted(pod("p")), "DeletionByTaintManager"), "NodeLost", "node n1 stopped reporting", AGAIN
    ),
    "loss not finite": Row(
        raising(StageError(ExitCode.CONFIGURATION, "LossNotFinite", "step 4: lower training.learningRate", step=4)),
        "LossNotFinite",
        "learningRate",
        NEVER,
    ),
    "hung": Row(
        judged(hang=Hang(message="rank 1 is stopped (SIGSTOP)", rank=1, step=7)), "Hung", "rank 1 is stopped", AT_A_COST
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_an_end_has_a_reason_an_advice_and_a_rule(name: str) -> None:
    check(ROWS[name])


def test_a_bad_configuration_names_its_field(tmp_path: Path) -> None:
    check(Row(misconfigured(tmp_path), "InvalidConfiguration", "model.source", NEVER))


def check(row: Row) -> None:
    failure = of_pod(row.pod())
    assert failure
    assert failure.reason == row.reason
    assert row.advice in failure.message
    verdict = decide(failure, restarts=0, disruptions=0, newer_checkpoint=False, max_restarts=5)
    rule = NEVER if not verdict.restart else AT_A_COST if verdict.restarts else AGAIN
    assert rule == row.rule


WAITS: dict[str, tuple[Object, str, str]] = {
    "image missing": (waiting("p", "ErrImagePull", "not found"), "ImagePullBackOff", "Check the name, the tag"),
    "unschedulable": (
        unschedulable("0/2 nodes are available: 2 Insufficient nvidia.com/gpu."),
        "Unschedulable",
        "Insufficient nvidia.com/gpu",
    ),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_has_a_reason_and_an_advice_and_ends_no_attempt(name: str) -> None:
    found, reason, advice = WAITS[name]
    told = problem([found], [], NOW)
    assert told
    assert told.reason == reason
    assert advice in told.message
    assert of_pod(found) is None
