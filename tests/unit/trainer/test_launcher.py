"""The launcher as PID 1 sees the world: real processes, real signals, real HTTP; only the workload is the test's."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.trainer.launcher_pod import SUCCEED, Pod, alive, eventually, pod

IGNORE_TERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
READY = "(RUNTIME / 'ready').write_text(str(os.getpid()))\n"
SLEEP = "time.sleep(600)\n"


def test_success_leaves_the_result_of_rank_0_as_termination_message(tmp_path: Path) -> None:
    with pod(tmp_path, SUCCEED) as p:
        assert p.start().wait() == 0
        assert p.outcome().result == {"step": 7}


def test_a_stage_that_exits_with_0_without_an_outcome_has_not_succeeded(tmp_path: Path) -> None:
    with pod(tmp_path, "sys.exit(0)") as p:
        assert p.start().wait() == 70
        assert p.outcome().reason == "InternalError"


def test_an_outcome_left_by_the_last_container_of_the_pod_is_not_believed(tmp_path: Path) -> None:
    with pod(tmp_path, "if not (RUNTIME.parent / 'second').exists():\n  " + "\n  ".join(SUCCEED.split("\n"))) as p:
        assert p.start().wait() == 0
        (tmp_path / "second").touch()
        assert p.start().wait() == 70


def test_sigterm_reaches_the_stage_and_the_pod_ends_as_stopped(tmp_path: Path) -> None:
    with pod(tmp_path, READY + SLEEP) as p:
        p.start()
        child = int(p.told("ready"))
        p.terminate()
        assert p.wait() == 143
        assert (p.outcome().reason, p.outcome().retryable) == ("Stopped", True)
        assert not alive(child)


def test_sigterm_before_the_stage_has_started_is_not_lost(tmp_path: Path) -> None:
    with pod(tmp_path, SLEEP) as p:
        p.start()
        eventually(lambda: "SigBlk:\t0000000000014002" in Path(f"/proc/{p.running.pid}/status").read_text(), "masked")
        p.terminate()
        assert p.wait() == 143


def test_a_stage_that_finishes_its_work_after_sigterm_is_a_success(tmp_path: Path) -> None:
    finish = "signal.signal(signal.SIGTERM, lambda *_: None)\n" + READY + "signal.pause()\n" + SUCCEED
    with pod(tmp_path, finish) as p:
        p.start().told("ready")
        p.terminate()
        assert p.wait() == 0


def test_a_stage_that_turns_sigterm_into_exit_0_without_finishing_is_stopped_not_succeeded(tmp_path: Path) -> None:
    with pod(tmp_path, "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n" + READY + SLEEP) as p:
        p.start().told("ready")
        p.terminate()
        assert p.wait() == 143
        assert p.outcome().reason == "Stopped"


def test_after_the_grace_period_everything_is_killed_even_in_other_sessions(tmp_path: Path) -> None:
    stubborn = (
        "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    )
    workload = (
        IGNORE_TERM
        + f"g = subprocess.Popen([sys.executable, '-c', {stubborn!r}], start_new_session=True, stdout=-1)\n"
        + "g.stdout.readline()\n(RUNTIME / 'grandchild').write_text(str(g.pid))\n"
        + READY
        + SLEEP
    )
    with pod(tmp_path, workload) as p:
        p.start(env={"FALCON_GRACE_SECONDS": "1"})
        child, grandchild = int(p.told("ready")), int(p.told("grandchild"))
        p.terminate()
        assert p.wait() == 143
        assert "grace period" in p.outcome().message
        assert not alive(child)
        assert not alive(grandchild)


def test_orphans_of_a_stage_that_ended_do_not_survive_it(tmp_path: Path) -> None:
    # The orphan keeps the stage's stderr open: the launcher must not wait for it either.
    orphan = "import os,time\nif os.fork() == 0:\n  os.setsid()\n  print(os.getpid(), flush=True)\n  time.sleep(600)"
    workload = (
        f"p = subprocess.Popen([sys.executable, '-c', {orphan!r}], stdout=subprocess.PIPE)\n"
        "(RUNTIME / 'orphan').write_text(p.stdout.readline().decode())\np.wait()\n" + SUCCEED
    )
    with pod(tmp_path, workload) as p:
        assert p.start().wait() == 0
        assert not alive(int(p.told("orphan")))


def test_orphans_that_end_while_the_stage_runs_are_collected(tmp_path: Path) -> None:
    # Each shell leaves a background process behind that ends after it: without a reaper it would stay a zombie.
    workload = "for _ in range(5): subprocess.run(['sh', '-c', 'sleep 0.1 &'])\n" + READY + SLEEP
    with pod(tmp_path, workload) as p:
        p.start()
        child = int(p.told("ready"))

        def children() -> list[str]:
            return Path(f"/proc/{p.running.pid}/task/{p.running.pid}/children").read_text().split()

        eventually(lambda: children() == [str(child)], "the stage is the launcher's only child")


def test_a_stage_killed_from_outside_is_reported_with_its_signal(tmp_path: Path) -> None:
    with pod(tmp_path, READY + SLEEP) as p:
        os.kill(int(p.start().told("ready")), signal.SIGKILL)
        assert p.wait() == 70
        assert p.outcome().reason == "Killed"
        assert "SIGKILL" in p.outcome().message


def test_the_last_words_of_a_crash_are_in_the_message_and_all_of_them_in_the_log(tmp_path: Path) -> None:
    talk = "for n in range(2000): print('line', n, file=sys.stderr)\nraise SystemExit('the disk melted')"
    with pod(tmp_path, talk) as p:
        assert p.start().wait() == 70
        assert "the disk melted" in p.outcome().message
        assert "line 1999" in p.outcome().message
        assert p.log().startswith("line 0\nline 1\n")
        assert len(p.termination_log.read_bytes()) <= 4096


@pytest.mark.parametrize(
    ("config", "named"),
    {
        "text that is no JSON": ("{", "cannot be parsed"),
        "an unknown field": ({"surprise": 1}, "surprise"),
        "a field of the wrong type, named with its path": (
            {"training": {"warmupSteps": "many"}},
            "training.warmupSteps",
        ),
        "two fields that exclude each other": ({"training": {"epochs": 1, "maxSteps": 2}}, "exclude each other"),
    }.values(),
)
def test_a_broken_configuration_ends_the_pod_with_64_before_anything_starts(
    tmp_path: Path, config: object, named: str
) -> None:
    with pod(tmp_path, READY, config=config) as p:
        assert p.start().wait() == 64
        assert p.outcome().reason == "InvalidConfiguration"
        assert named in p.outcome().message
        assert not p.outcome().retryable
        assert not (p.runtime / "ready").exists()


@pytest.mark.parametrize("variable", ["JOB_COMPLETION_INDEX", "FALCON_GRACE_SECONDS", "FALCON_RENDEZVOUS_SECONDS"])
def test_a_broken_environment_is_named(tmp_path: Path, variable: str) -> None:
    with pod(tmp_path, READY) as p:
        assert p.start(env={variable: "soon"}).wait() == 64
        assert variable in p.outcome().message


def test_outside_a_pod_the_outcome_is_on_stderr_and_the_exit_code_is_the_same(tmp_path: Path) -> None:
    with pod(tmp_path, SUCCEED) as p:
        p.termination_log = tmp_path / "no" / "such" / "folder"
        assert p.start().wait() == 0
        assert "termination message could not be written" in p.log()
        assert "outcome: Completed" in p.log()


BEAT = """
from falcon_trainer.beats import Beats
Beats("merge", 0, RUNTIME).update("train", step=3, total_steps=9, loss=float(sys.argv[2] if sys.argv[2:] else "0.5"))
"""


def test_progress_and_metrics_are_answered_while_the_stage_is_stopped(tmp_path: Path) -> None:
    with pod(tmp_path, BEAT + READY + SLEEP) as p:
        child = int(p.start().told("ready"))
        os.kill(child, signal.SIGSTOP)
        body = json.loads(p.get("/progress") or "null")
        assert body["summary"] == {
            **{"stage": "merge", "phase": "train", "rank": 0},
            **{"step": 3, "totalSteps": 9, "loss": 0.5, "notices": []},
        }
        assert [rank["rank"] for rank in body["ranks"]] == [0]
        first = body["ranks"][0]["sinceBeatSeconds"]
        eventually(
            lambda: json.loads(p.get("/progress") or "{}")["ranks"][0]["sinceBeatSeconds"] > first, "the beat grows old"
        )
        assert 'falcon_loss{run="tiny",stage="merge",rank="0"} 0.5' in (p.get("/metrics") or "")
        assert p.get("/healthz") == "ok\n"
        p.terminate()
        os.kill(child, signal.SIGCONT)
        assert p.wait() == 143


def test_before_the_first_beat_progress_is_the_launchers_own_word(tmp_path: Path) -> None:
    with pod(tmp_path, SLEEP) as p:
        p.start()
        body = eventually(lambda: p.get("/progress"), "the launcher answers")
        assert json.loads(body)["summary"]["phase"] == "start"
        assert json.loads(body)["ranks"] == []


def test_a_loss_that_is_not_a_number_leaves_progress_valid_json(tmp_path: Path) -> None:
    with pod(tmp_path, BEAT.replace('"0.5"', '"nan"') + READY + SLEEP) as p:
        p.start().told("ready")
        body = p.get("/progress") or ""
        assert "loss" not in json.loads(body)["summary"]
        assert "NaN" not in body


def test_silent_clients_do_not_keep_the_others_waiting(tmp_path: Path) -> None:
    with pod(tmp_path, READY + SLEEP) as p:
        p.start().told("ready")
        silent = [socket.create_connection(("127.0.0.1", p.port)) for _ in range(20)]
        assert p.get("/healthz") == "ok\n"
        assert p.get("/nowhere") is None
        for connection in silent:
            connection.close()


def test_both_address_families_are_answered_where_the_machine_has_them(tmp_path: Path) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 on this machine")
    with pod(tmp_path, READY + SLEEP) as p:
        p.start().told("ready")
        socket.create_connection(("::1", p.port), timeout=5).close()
        socket.create_connection(("127.0.0.1", p.port), timeout=5).close()


GANG = {"gang": {"gpusPerNode": 0, "nodes": 2}}


def test_a_gang_that_never_meets_ends_as_retryable_and_says_what_was_missing(tmp_path: Path) -> None:
    with pod(tmp_path, READY, config=GANG) as p:
        p.start("train", env={"FALCON_RENDEZVOUS_HOST": "rank-0.invalid", "FALCON_RENDEZVOUS_SECONDS": "0.5"})
        assert p.wait() == 75
        assert p.outcome().reason == "RendezvousTimeout"
        assert "rank-0.invalid does not resolve" in p.outcome().message


def test_a_pod_that_waits_for_its_gang_says_so_and_stops_at_once_on_sigterm(tmp_path: Path) -> None:
    with pod(tmp_path, READY, config=GANG) as p:
        p.start("train", env={"FALCON_RENDEZVOUS_HOST": "rank-0.invalid", "JOB_COMPLETION_INDEX": "1"})

        def phase() -> str | None:
            body = p.get("/progress")
            return str(json.loads(body)["summary"]["phase"]) if body else None

        eventually(lambda: phase() == "rendezvous", "progress says that the gang assembles")
        p.terminate()
        assert p.wait() == 143
        assert not (p.runtime / "ready").exists()


@pytest.mark.parametrize(
    ("env", "named"),
    {
        "no rendezvous host": ({}, "FALCON_RENDEZVOUS_HOST"),
        "an index beyond the gang": (
            {"JOB_COMPLETION_INDEX": "2", "FALCON_RENDEZVOUS_HOST": "x"},
            "JOB_COMPLETION_INDEX",
        ),
    }.values(),
)
def test_a_gang_pod_without_its_place_is_refused(tmp_path: Path, env: dict[str, str], named: str) -> None:
    with pod(tmp_path, READY, config=GANG) as p:
        assert p.start("train", env).wait() == 64
        assert named in p.outcome().message


def test_the_launcher_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "numpy", "yaml", "aiohttp", "asyncio"}
    code = f"import sys, falcon_trainer.launcher.run; print({heavy!r} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_the_console_script_runs_the_real_command_line(tmp_path: Path) -> None:
    made = Pod(tmp_path, "", config="{")
    env = {
        **os.environ,
        "FALCON_CONFIG": str(tmp_path / "run.json"),
        "FALCON_RUNTIME": str(made.runtime),
        "FALCON_TERMINATION_LOG": str(made.termination_log),
    }
    script = Path(sys.executable).with_name("falcon-launcher")
    done = subprocess.run([script, "prepare"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 64, done.stderr
    assert made.outcome().reason == "InvalidConfiguration"
