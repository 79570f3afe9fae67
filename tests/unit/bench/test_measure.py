"""What the benches bind their sides to, and count of them."""

import os
import subprocess
import sys
from mmap import mmap

import pytest

from bench import merge
from bench.measure import MEGABYTE, anonymous, on_cpus

CPUS = "from falcon_trainer.launcher.cgroup import Cgroup; print(Cgroup().cpus())"


def test_a_side_counts_the_cpus_that_it_is_bound_to() -> None:
    before = os.sched_getaffinity(0)
    with on_cpus(1):
        told = subprocess.run([sys.executable, "-c", CPUS], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "1"
    assert os.sched_getaffinity(0) == before


def test_more_threads_than_cpus_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["merge.py", "--threads", "100000"])
    with pytest.raises(SystemExit):
        merge.parse()
    assert "--threads: there are" in capsys.readouterr().err


def test_anonymous_memory_that_may_be_shared_counts() -> None:
    before = anonymous()
    shared = mmap(-1, 64 * MEGABYTE)
    for page in range(0, len(shared), 4096):
        shared[page] = 1
    assert anonymous() - before > 50 * MEGABYTE
