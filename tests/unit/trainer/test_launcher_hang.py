"""Gangs that hang or do not leave, in real processes: found, asked, named, ended."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.unit.trainer.launcher_pod import Pod, alive, eventually, pod

TWO_RANKS = {"gang": {"gpusPerNode": 0, "processesPerNode": 2}}
IMPATIENT = "step=1,first-step=1,load=1,quiet=1,nothing-to-save=1,farewell=1,exit=1,deference=2"
RANK = """
import threading
from falcon_trainer.beats import Beats
from falcon_trainer.endings import write_ending
from falcon_trainer.outcome import Outcome
from falcon_trainer.stacks import offer_stacks

offer_stacks(RANK, RUNTIME)
signal.signal(signal.SIGTERM, lambda *_: None)  # as in training: it asks for a stop, and that needs all ranks
beats = Beats("train", RANK, RUNTIME)
wait_for_ever = threading.Event().wait

def train():
    "Until the test has seen enough."
    step = 0
    while not (RUNTIME / "enough").exists():
        beats.update("train", step=step, last_checkpoint_step=0)
        time.sleep(0.05)
        step += 1
    beats.update("train", step=1000)
    there()

def there():
    (RUNTIME / f"pid-{RANK}").write_text(str(os.getpid()))

def end(code, reason):
    write_ending(RANK, code, Outcome(reason=reason, message="said by the rank", retryable=True, rank=RANK), RUNTIME)
"""


def gang(folder: Path, workload: str, config: Any = TWO_RANKS) -> Any:
    return pod(folder, RANK + workload, config=config, agent="tests.unit.trainer.quick_agent")


def start(p: Pod, **env: str) -> Pod:
    return p.start(
        "train", env={"FALCON_PATIENCE": IMPATIENT, "FALCON_ATTEMPT": "3", "FALCON_GRACE_SECONDS": "120", **env}
    )


def trained(p: Pod) -> dict[int, int]:
    """The pids of the ranks, which have trained to step 1000: the launcher knows how long a step takes."""
    start(p)
    first = eventually(lambda: steps(p), "the ranks train")
    eventually(lambda: min(steps(p)) > max(first), "the launcher sees another step")
    (p.runtime / "enough").touch()
    return {rank: int(p.told(f"pid-{rank}")) for rank in (0, 1)}


def steps(p: Pod) -> list[int]:
    """Step of each rank, once both have one."""
    found = [rank["step"] for rank in json.loads(p.get("/progress") or '{"ranks": []}')["ranks"] if "step" in rank]
    return found if len(found) == 2 else []


def stacks(p: Pod, rank: int) -> str:
    return (p.folder / "workspace" / "runs" / "tiny" / "report" / f"stacks-3-{rank}.txt").read_text()


def test_a_stopped_rank_is_named_and_the_stacks_of_the_others_are_kept(tmp_path: Path) -> None:
    with gang(tmp_path, "train()\nwait_for_ever()") as p:
        pids = trained(p)
        os.kill(pids[1], signal.SIGSTOP)
        eventually(lambda: "rank 1 is stopped (SIGSTOP)" in (p.get("/progress") or ""), "progress names the rank")
        assert p.wait() == 75
        outcome = p.outcome()
        assert (outcome.reason, outcome.rank, outcome.retryable) == ("Hung", 1, True)
        for said in ("No step has ended for", "Rank 1 is stopped (SIGSTOP). Rank 0 is in wait (threading.py:"):
            assert said in outcome.message
        assert "runs/tiny/report/stacks-3-RANK.txt" in outcome.message
        assert "workload.py" in stacks(p, 0)
        assert "in state T" in stacks(p, 1)
        assert not any(alive(pid) for pid in pids.values())


def test_a_rank_that_does_not_get_beyond_loading_is_behind_and_the_log_has_what_the_volume_does_not_take(
    tmp_path: Path,
) -> None:
    (tmp_path / "workspace").write_text("a file, where a folder should be")
    with gang(tmp_path, "beats.update('load' if RANK else 'train')\nwait_for_ever()") as p:
        assert start(p, FALCON_PATIENCE=f"{IMPATIENT},load=2").wait() == 75
        assert (p.outcome().reason, p.outcome().rank) == ("Hung", 1)
        assert "in phase load (limit 2 s). Rank 1 is behind, in phase load" in p.outcome().message
        assert "the stacks are in this pod's log" in p.outcome().message.lower()
        assert "stacks-3-1.txt:\nrank 1, in phase load" in p.log()


def test_a_pod_in_which_no_rank_stands_out_lets_the_pod_of_the_culprit_speak(tmp_path: Path) -> None:
    """The peer's pod ends first, and this one's ranks notice that; their stacks are kept all the same."""
    lose = "train()\nwhile not (RUNTIME / 'lost').exists(): time.sleep(0.02)\nend(75, 'RankLost')\nos._exit(75)"
    two_pods = {"gang": {"gpusPerNode": 0, "processesPerNode": 2, "nodes": 2}}
    with gang(tmp_path, lose, two_pods) as p:
        (p.runtime / "enough").parent.mkdir(parents=True)
        start(p, FALCON_RENDEZVOUS_HOST="localhost")
        eventually(lambda: steps(p), "the ranks train")
        (p.runtime / "enough").touch()
        eventually(lambda: "hung: No step has ended" in p.log(), "the launcher finds the hang")
        (p.runtime / "lost").touch()
        assert p.wait() == 75
        assert p.outcome().reason == "RankLost"
        assert "workload.py" in stacks(p, 0)


def test_after_sigterm_a_gang_whose_steps_no_longer_end_is_killed_long_before_its_grace_is_over(tmp_path: Path) -> None:
    with gang(tmp_path, "train()\nwait_for_ever()") as p:
        trained(p)
        began = time.monotonic()
        p.terminate()
        assert p.wait(60) == 143
        assert time.monotonic() - began < 60  # of 120
        assert p.outcome().reason == "Stopped"
        assert "no step has ended for" in p.outcome().message
        assert "is not saved: the newest checkpoint is of step 0" in p.outcome().message


def test_after_sigterm_ranks_that_have_nothing_to_save_are_not_waited_for(tmp_path: Path) -> None:
    with gang(tmp_path, "beats.update('load')\nthere()\nwait_for_ever()") as p:
        start(p, FALCON_PATIENCE=f"{IMPATIENT},load=600").told("pid-1")
        p.told("pid-0")
        p.terminate()
        assert p.wait() == 143
        assert "no step has ended since it started; training had not begun" in p.outcome().message


def test_a_save_has_all_of_the_grace_period(tmp_path: Path) -> None:
    save = (
        "train()\nbeats.update('save')\nsignal.signal(signal.SIGTERM, lambda *_: (RUNTIME / f'asked-{RANK}').touch())\n"
        "(RUNTIME / f'saving-{RANK}').touch()\nwhile not (RUNTIME / f'asked-{RANK}').exists(): time.sleep(0.02)\n"
        "time.sleep(2)\nend(143, 'Stopped')\nos._exit(143)"
    )
    with gang(tmp_path, save) as p:
        trained(p)
        eventually(lambda: all((p.runtime / f"saving-{rank}").exists() for rank in (0, 1)), "both save")
        p.terminate()
        assert p.wait() == 143
        assert p.outcome().message == "said by the rank"


def test_a_rank_that_stays_when_another_was_killed_is_killed_too_and_not_blamed(tmp_path: Path) -> None:
    killed = "beats.update('train')\nif RANK == 1: os.kill(os.getpid(), signal.SIGKILL)\nwait_for_ever()"
    with gang(tmp_path, killed) as p:
        assert start(p, FALCON_PATIENCE=f"{IMPATIENT},first-step=600").wait() == 70
        assert (p.outcome().reason, p.outcome().rank) == ("Killed", 1)


def test_ranks_that_told_their_success_but_cannot_exit_are_a_success(tmp_path: Path) -> None:
    with gang(tmp_path, "end(0, 'Completed')\nif RANK == 1: wait_for_ever()") as p:
        assert start(p).wait() == 0
