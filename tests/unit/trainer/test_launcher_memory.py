"""A real out-of-memory kill, in a memory cgroup (version 1 or 2) made for the test; needs a machine that lets us."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from falcon_trainer.launcher.cgroup import MEMBERSHIP, ROOT, memberships
from tests.unit.trainer.launcher_pod import eventually, pod

LIMIT = 192 * 2**20
EAT = """
held = []
while True: held.append(b"x" * (8 << 20))
"""


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A child of our own memory cgroup with LIMIT."""
    paths = memberships(MEMBERSHIP)
    version1 = "memory" in paths
    parent = ROOT / "memory" / paths["memory"].lstrip("/") if version1 else ROOT / paths.get("", "").lstrip("/")
    folder = parent / f"falcon-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        (folder / ("memory.limit_in_bytes" if version1 else "memory.max")).write_text(str(LIMIT))
        yield folder
    except OSError as error:
        pytest.skip(f"no memory limit can be set here: {error}")
    finally:
        with contextlib.suppress(OSError):
            eventually(lambda: not (folder / "cgroup.procs").read_text(), "the cgroup is empty")
            folder.rmdir()


def test_a_rank_that_the_kernel_killed_for_memory_is_reported_with_the_limit_and_advice(
    tmp_path: Path, small_cgroup: Path
) -> None:
    with pod(tmp_path, EAT) as p:
        assert p.start("merge", cgroup=small_cgroup).wait() == 70
        outcome = p.outcome()
        assert outcome.reason == "OutOfMemory", p.log()
        assert "0.19 GiB" in outcome.message
        assert "podTemplate.merge" in outcome.message
        assert outcome.retryable
