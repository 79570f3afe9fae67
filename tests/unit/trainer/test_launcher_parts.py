"""The launcher's pure parts: command lines, environments, cgroup files, metrics, the tail of stderr."""

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from falcon_trainer.beats import Beats
from falcon_trainer.config import RunConfig
from falcon_trainer.launcher.cgroup import Cgroup
from falcon_trainer.launcher.command import local_ranks, stage_command, stage_environment, without_empty
from falcon_trainer.launcher.deaths import own_deaths
from falcon_trainer.launcher.rendezvous import await_rendezvous
from falcon_trainer.launcher.server import Server, metrics_lines
from falcon_trainer.launcher.settings import Settings, read_settings
from falcon_trainer.launcher.state import State
from falcon_trainer.launcher.tail import LINE_BYTES, LINES, Tail
from falcon_trainer.outcome import StageError
from falcon_trainer.progress import PodProgress, Progress, RankProgress
from tests.unit.trainer.launcher_pod import CONFIG, free_port


def config(**gang: int) -> RunConfig:
    return RunConfig.model_validate(CONFIG | {"gang": {"gpusPerNode": 0} | gang})


def test_train_starts_torchrun_with_static_rendezvous_and_no_restarts_of_its_own() -> None:
    place = Settings(node_rank=1, rendezvous_host="run-train-2-0.run-train.ns.svc")
    assert stage_command("train", config(nodes=3, processesPerNode=4), place)[1:] == [
        *("-m", "falcon_trainer.launcher.agent", "--nnodes", "3", "--node-rank", "1", "--nproc-per-node", "4"),
        *("--master-addr", "run-train-2-0.run-train.ns.svc", "--master-port", "29500", "--max-restarts", "0"),
        *("-m", "falcon_trainer.cli", "train"),
    ]


def test_a_gang_of_one_pod_needs_no_name_service() -> None:
    assert "127.0.0.1" in stage_command("train", config(), Settings(rendezvous_host="unresolved"))


@pytest.mark.parametrize("stage", ["prepare", "merge", "serve"])
def test_other_stages_are_one_process(stage: str) -> None:
    assert stage_command(stage, config(nodes=3), Settings()) == [sys.executable, "-m", "falcon_trainer.cli", stage]
    assert local_ranks(stage, config(nodes=3), Settings()) == range(1)


def test_ranks_of_a_pod_follow_its_index() -> None:
    assert local_ranks("train", config(nodes=3, processesPerNode=4), Settings(node_rank=2)) == range(8, 12)


ENVIRONMENTS = {
    "CPU ranks share the pod's CPUs": ("train", {"processesPerNode": 3}, 8, "OMP_NUM_THREADS", "2"),
    "a rank has one thread at least": ("train", {"processesPerNode": 4}, 2, "OMP_NUM_THREADS", "1"),
    "merge has all CPUs": ("merge", {"processesPerNode": 4}, 8, "OMP_NUM_THREADS", "8"),
    "a gang without GPUs tells DeepSpeed": ("train", {}, 1, "DS_ACCELERATOR", "cpu"),
    "a gang with GPUs leaves the choice to DeepSpeed": ("train", {"gpusPerNode": 8}, 1, "DS_ACCELERATOR", None),
    "merge uses no GPU even in a GPU run": ("merge", {"gpusPerNode": 8}, 1, "CUDA_VISIBLE_DEVICES", ""),
    "ranks get their large tensors in huge pages": ("train", {}, 1, "THP_MEM_ALLOC_ENABLE", "1"),
    "training never asks the Hub": ("train", {}, 1, "HF_HUB_OFFLINE", "1"),
    "prepare may ask the Hub": ("prepare", {}, 1, "HF_HUB_OFFLINE", None),
    "the launcher decides when ranks are killed, not torchrun": (
        *("train", {}, 1),
        *("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "85"),
    ),
    "what the pod sets itself is kept": ("train", {}, 1, "KEPT", "by the pod"),
    "a home for a user that has none": ("train", {}, 1, "HOME", "/tmp"),
}


@pytest.mark.parametrize(("stage", "gang", "cpus", "name", "value"), ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_environment_of_the_stage(stage: str, gang: dict[str, int], cpus: int, name: str, value: str | None) -> None:
    pods = without_empty({"KEPT": "by the pod", "HOME": "/"})
    assert stage_environment(stage, config(**gang), Settings(), pods, cpus).get(name) == value


def test_settings_come_from_the_pods_environment() -> None:
    env = {
        "JOB_COMPLETION_INDEX": "3",
        "FALCON_ATTEMPT": "2",
        "FALCON_GRACE_SECONDS": "115",
        "FALCON_RENDEZVOUS_HOST": "h",
    }
    assert read_settings(env) == Settings(node_rank=3, attempt=2, grace_seconds=115.0, rendezvous_host="h")
    assert read_settings({}) == Settings()
    with pytest.raises(StageError, match="FALCON_ATTEMPT='many'"):
        read_settings({"FALCON_ATTEMPT": "many"})


def test_limits_of_hang_detection_can_be_replaced_one_by_one() -> None:
    assert read_settings({"FALCON_PATIENCE": "load=7200, save=90.5,"}).patience == {"load": 7200.0, "save": 90.5}
    for wrong in ("load", "load=", "load=2h", "load=-1"):
        with pytest.raises(StageError, match="FALCON_PATIENCE, load"):
            read_settings({"FALCON_PATIENCE": wrong})


CGROUPS: dict[str, tuple[str, dict[str, str], tuple[int | None, int | None]]] = {
    "version 2, as a container sees it": (
        "0::/\n",
        {"memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n", "memory.max": "1073741824\n"},
        (2, 2**30),
    ),
    "version 2 without a limit": ("0::/\n", {"memory.events": "oom_kill 0\n", "memory.max": "max\n"}, (0, None)),
    "version 1, as a container sees it: its own cgroup is the root of the mount": (
        "4:memory:/kubepods/pod1/c1\n",
        {
            "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
            "memory/memory.limit_in_bytes": "2147483648\n",
        },
        (5, 2**31),
    ),
    "version 1 outside a container": (
        "5:cpu,cpuacct:/x\n4:memory:/mine\n0::/\n",
        {
            "memory/memory.oom_control": "oom_kill 9\n",
            "memory/mine/memory.oom_control": "oom_kill 1\n",
            "memory/mine/memory.limit_in_bytes": "9223372036854771712\n",
        },
        (1, None),
    ),
    "no cgroup that can be read": ("", {}, (None, None)),
}


def cgroup_of(folder: Path, membership: str, files: dict[str, str]) -> Cgroup:
    (folder / "self").write_text(membership)
    for name, text in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Cgroup(folder / "root", folder / "self")


@pytest.mark.parametrize(("membership", "files", "expected"), CGROUPS.values(), ids=CGROUPS)
def test_memory_of_the_cgroup(
    tmp_path: Path, membership: str, files: dict[str, str], expected: tuple[int | None, int | None]
) -> None:
    cgroup = cgroup_of(tmp_path, membership, files)
    assert (cgroup.oom_kills(), cgroup.memory_limit()) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    {
        "version 2 quota below one CPU still is one": ({"cpu.max": "50000 100000\n"}, 1),
        "version 2 without a quota": ({"cpu.max": "max 100000\n"}, None),
        "version 1 quota": ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        "version 1 without a quota": ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        "a quota above the CPUs that this process may use": ({"cpu.max": "6400000 100000\n"}, None),
    }.values(),
)
def test_cpus_of_the_cgroup(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    available = len(os.sched_getaffinity(0))
    assert cgroup_of(tmp_path, "0::/\n", files).cpus() == (expected or available)


def test_metrics_hold_a_gauge_for_each_number_that_a_rank_told() -> None:
    summary = Progress(stage="train", phase="train", rank=2)
    ranks = [
        RankProgress(stage="train", phase="train", rank=2, step=5, loss=1.5, since_beat_seconds=0.25),
        RankProgress(stage="train", phase="train", rank=3, since_beat_seconds=9.0),
    ]
    lines = list(metrics_lines('od"d', PodProgress(summary=summary, ranks=ranks)))
    assert [line for line in lines if not line.startswith("#")] == [
        'falcon_step{run="od\\"d",stage="train",rank="2"} 5',
        'falcon_loss{run="od\\"d",stage="train",rank="2"} 1.5',
        'falcon_since_beat_seconds{run="od\\"d",stage="train",rank="2"} 0.25',
        'falcon_since_beat_seconds{run="od\\"d",stage="train",rank="3"} 9.0',
    ]
    assert sum(line.startswith("# TYPE") for line in lines) == 3


def test_what_the_launcher_notices_is_told_where_the_rank_itself_says_nothing(tmp_path: Path) -> None:
    state, beats = State("train", "tiny", range(2), tmp_path), Beats("train", 0, tmp_path)
    state.remark = "rank 1 is behind" + "!" * 300
    beats.update("train", step=3)
    assert (state.snapshot().summary.message or "").startswith("rank 1 is behind!!")
    assert state.snapshot().ranks[0].message is None
    beats.update("train", step=4, message="the rank's own words")
    assert state.snapshot().summary.message == "the rank's own words"


@dataclass
class Failure:
    exitcode: int
    timestamp: int


def test_ranks_that_torchrun_itself_killed_are_not_among_the_deaths() -> None:
    found = {0: Failure(70, 100), 1: Failure(-9, 101), 2: Failure(-9, 130), 3: Failure(-15, 130)}
    assert own_deaths(found) == {0: 70, 1: -9, 3: -15}
    assert own_deaths({}) == {}


def test_a_pod_waits_until_rank_0_answers(tmp_path: Path) -> None:
    port = free_port()
    said: list[str] = []

    def sleep(_: float) -> bool:
        if len(said) == 2:  # only now rank 0's pod starts
            Server(State("train", "tiny", directory=tmp_path), port).start()
        return False

    assert await_rendezvous("localhost", node_rank=1, patience=30, say=said.append, sleep=sleep, port=port)
    assert len(said) == 2
    assert all("does not answer" in sentence for sentence in said)


def test_rank_0s_own_pod_waits_for_its_name_only() -> None:
    closed = free_port()
    assert await_rendezvous("localhost", node_rank=0, patience=0, say=print, sleep=lambda _: False, port=closed)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=50), max_size=40), st.integers(1, 70))
@example([b"\t"], 1)
def test_the_tail_passes_every_byte_on_and_keeps_the_lines_whatever_the_chunks(words: list[bytes], cut: int) -> None:
    text = b"\n".join(words)
    read_end, write_end = os.pipe()
    tail = Tail(out=write_end)
    for start in range(0, len(text), cut):
        os.write(tail.write_end, text[start : start + cut])
    tail.close()
    os.close(write_end)
    with os.fdopen(read_end, "rb") as passed_on:
        assert passed_on.read() == text
    told = [line for line in text.replace(b"\r", b"\n").split(b"\n") if line.strip()]
    assert tail.lines()[-3:] == [line.decode(errors="replace") for line in told[-3:]]


def test_the_tail_is_bounded_in_lines_and_in_bytes() -> None:
    with Path(os.devnull).open("wb") as nowhere:
        tail = Tail(out=nowhere.fileno())
        writer = threading.Thread(target=lambda: os.write(tail.write_end, b"x\n" * 1000 + b"y" * 100_000))
        writer.start()
        writer.join()
        tail.close()
    assert len(tail.lines()) == LINES + 1
    assert len(tail.lines()[-1]) == LINE_BYTES


def test_what_torchrun_says_after_a_rank_does_not_hide_the_ranks_last_words() -> None:
    said = (
        b"RuntimeError: the real reason\n"
        b"E1124 08:49:59.835000 5512 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1)\n"
        b"ranks ended with these exit codes (negative: a signal): {}\n"
    )
    with Path(os.devnull).open("wb") as nowhere:
        tail = Tail(out=nowhere.fileno())
        os.write(tail.write_end, said)
        tail.close()
    assert tail.lines() == ["RuntimeError: the real reason"]
