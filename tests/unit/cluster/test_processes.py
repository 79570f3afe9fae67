"""Only processes that we started are ever ended."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import Process, start_time

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)",
]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process("sleeper", tmp_path)
    yield process
    process.kill()


def _wait_for_log(process: Process, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in process.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_started_process_is_found_again_through_its_record(process: Process, tmp_path: Path) -> None:
    process.start(SLEEP)
    assert Process("sleeper", tmp_path).pid == process.pid
    assert process.alive


def test_a_process_id_that_somebody_else_has_now_is_not_ours(process: Process) -> None:
    with subprocess.Popen(SLEEP) as stranger:
        try:
            process.record.write_text(json.dumps({"pid": stranger.pid, "started": "another-boot/12345"}))
            assert not process.alive
            process.stop()
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize("record", ["", '{"pid": 1'], ids=["empty", "half a line"])
def test_a_record_that_a_crash_cut_off_means_no_process(process: Process, record: str) -> None:
    process.record.write_text(record)
    assert process.pid is None


def test_a_process_that_ignores_the_request_is_ended_all_the_same(process: Process) -> None:
    process.start(STUBBORN)
    _wait_for_log(process, "ready")
    pid = process.pid
    assert pid is not None
    process.stop(timeout=0.3)
    assert start_time(pid) is None
    assert not process.record.exists()


def test_a_child_that_died_is_dead_although_nobody_waited_for_it(process: Process) -> None:
    process.start([sys.executable, "-c", "print('last words')"])
    deadline = time.monotonic() + 20
    while process.alive:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "last words" in process.last_words()


def test_processes_end_with_the_test_that_started_them(tmp_path: Path) -> None:
    starter = (
        "import sys; from pathlib import Path; from tests.cluster.processes import Process\n"
        f"Process('sleeper', Path({str(tmp_path)!r})).start({SLEEP!r}, dies_with_parent=True)\n"
        "import os; os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", starter], check=False, cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 20
    while Process("sleeper", tmp_path).alive:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_this_process_began_once() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid())
    assert start_time(2**22 + 1) is None
