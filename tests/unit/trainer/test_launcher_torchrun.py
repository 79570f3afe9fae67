"""The launcher with the real torchrun and real gloo ranks. Slow (each process imports torch), so few."""

import contextlib
import json
from pathlib import Path

from tests.unit.trainer.launcher_pod import Pod, eventually, free_port, pod

RANK_PROGRAM = """
import torch, torch.distributed as dist
from falcon_trainer.endings import write_ending
from falcon_trainer.faults import understand
from falcon_trainer.outcome import ExitCode, Outcome, StageError

def work():
    dist.init_process_group("gloo")
    value = torch.ones(1)
    dist.all_reduce(value)
    FAULT
    dist.all_reduce(value)
    dist.destroy_process_group()
    return int(value)

try:
    result = work()
except Exception as error:
    known = understand(error, "train")
    write_ending(RANK, known.code, known.outcome(RANK), RUNTIME)
    os._exit(known.code)
write_ending(RANK, 0, Outcome(reason="Completed", message="done", result={"sum": result}), RUNTIME)
"""
TWO_RANKS = {"gang": {"gpusPerNode": 0, "processesPerNode": 2}}


def test_a_killed_rank_is_named_although_its_peer_fails_with_a_lost_connection(tmp_path: Path) -> None:
    fault = "if RANK == 1: os.kill(os.getpid(), signal.SIGKILL)"
    with pod(tmp_path, RANK_PROGRAM.replace("FAULT", fault), config=TWO_RANKS) as p:
        assert p.start("train").wait() == 70
        outcome = p.outcome()
        assert (outcome.reason, outcome.rank, outcome.retryable) == ("Killed", 1, True), p.log()


def test_a_rank_whose_peer_left_says_rank_lost_and_the_understood_error_is_the_pods_outcome(tmp_path: Path) -> None:
    fault = "if RANK == 1: raise StageError(ExitCode.DATA, 'BrokenRow', 'row 17 holds no token', step=4)"
    with pod(tmp_path, RANK_PROGRAM.replace("FAULT", fault), config=TWO_RANKS) as p:
        assert p.start("train").wait() == 65
        outcome = p.outcome()
        assert (outcome.reason, outcome.rank, outcome.step) == ("BrokenRow", 1, 4)
        # Unless torchrun was faster than gloo, the other rank has told what it saw: that it lost its peer.
        other = p.runtime / "outcome-0.json"
        assert not other.exists() or json.loads(other.read_text())["outcome"]["reason"] == "RankLost", p.log()


LOOP = """if RANK == 1:
        beat.update("train", step=7)
        while True: pass"""
BEATING = RANK_PROGRAM.replace(
    "def work():",
    """from falcon_trainer.beats import Beats
from falcon_trainer.stacks import offer_stacks
offer_stacks(RANK, RUNTIME)
beat = Beats("train", RANK, RUNTIME)

def work():""",
).replace("FAULT", 'beat.update("train", step=7)\n    ' + LOOP)


def test_of_a_gang_that_hangs_the_rank_that_does_not_wait_for_the_others_is_named(tmp_path: Path) -> None:
    with pod(tmp_path, BEATING, config=TWO_RANKS) as p:
        assert p.start("train", env={"FALCON_PATIENCE": "first-step=1"}).wait() == 75
        outcome = p.outcome()
        assert (outcome.reason, outcome.rank, outcome.step) == ("Hung", 1, 7), p.log()
        assert "Rank 1 does not wait for the others: it is in work (workload.py:" in outcome.message
        assert "Rank 0 is in all_reduce (distributed_c10d.py:" in outcome.message


def test_two_pods_meet_and_only_rank_0s_tells_the_result(tmp_path: Path) -> None:
    config = {"gang": {"gpusPerNode": 0, "nodes": 2}}
    port = free_port()
    with contextlib.ExitStack() as stack:
        pods = [
            stack.enter_context(
                pod(tmp_path / str(node), RANK_PROGRAM.replace("FAULT", ""), config=config, rendezvous_port=port)
            )
            for node in range(2)
        ]
        for node, each in enumerate(pods):
            each.start("train", env={"FALCON_RENDEZVOUS_HOST": "localhost", "JOB_COMPLETION_INDEX": str(node)})
        assert [each.wait() for each in pods] == [0, 0], [each.log() for each in pods]
        assert pods[0].outcome().result == {"sum": 4}
        assert pods[1].outcome().result is None


def test_sigterm_ends_a_gang_pod_within_its_grace_although_a_rank_ignores_it(tmp_path: Path) -> None:
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN); (RUNTIME / f'ready-{RANK}').touch(); time.sleep(600)"
    with pod(tmp_path, stubborn, config=TWO_RANKS) as p:
        _start_and_stop(p)
        assert p.wait() == 143, p.log()
        assert p.outcome().reason == "Stopped"


def _start_and_stop(p: Pod) -> None:
    p.start("train", env={"FALCON_GRACE_SECONDS": "3"})
    eventually(lambda: all((p.runtime / f"ready-{rank}").exists() for rank in (0, 1)), "both ranks are ready", 60)
    p.terminate()
