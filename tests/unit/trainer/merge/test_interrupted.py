"""A merge that is killed, or finds the volume full, leaves whole shards only, and the next one goes on after them."""

import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from falcon_trainer.artifacts import FileEntry, sha256_of
from falcon_trainer.faults import understand
from falcon_trainer.merge import budget
from falcon_trainer.merge.draft import Draft
from falcon_trainer.model.lora import ADAPTER_FILE
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.merge import victim
from tests.unit.trainer.merge.test_exactness import Case, make_case

KILLS = 20


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "BLOCK", 5 * 4096)
    monkeypatch.setattr(budget, "SCRATCH", 4 * 4096)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A base whose every matrix is a shard of its own."""
    folder = tmp_path_factory.mktemp("case")
    made = make_case(folder, torch.bfloat16, tied=True, shard_size="8KB", variant="lora", num_hidden_layers=10)
    assert len(list(made.base.glob("*.safetensors"))) > 40
    return made


def merge(case: Case, folder: Path) -> dict[str, FileEntry]:
    return victim.merge(case.base, case.adapter / ADAPTER_FILE, case.scale, folder)


def shards_in(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in (folder / "model").glob("*.safetensors")}


def mark(file: Path) -> tuple[int, int]:
    """Differs where a file is written anew."""
    status = file.stat()
    return status.st_ino, status.st_mtime_ns


def test_killed_at_twenty_random_calls_it_goes_on_and_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    expected = merge(case, tmp_path / "at-once")
    draft = tmp_path / "killed"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([victim.__name__])
    chance, written = random.Random(0), dict[str, tuple[int, int]]()
    for kill in range(KILLS):
        told = (case.base, case.adapter / ADAPTER_FILE, case.scale, draft, chance.randint(1, 16))
        process = context.Process(target=victim.merge_and_die, args=told)
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, f"kill {kill}"
        for name, shard in shards_in(draft).items():
            assert sha256_of(shard) == expected[name].sha256, f"kill {kill}: half a shard has its final name"
            assert written.setdefault(name, mark(shard)) == mark(shard), f"kill {kill}: {name} is merged again"
    assert 0 < len(written) < len(expected)
    assert merge(case, draft) == expected
    assert {name: mark(shards_in(draft)[name]) for name in written} == written
    assert shards_in(draft).keys() == expected.keys()
    assert not list(draft.glob("*.partial"))


@pytest.mark.parametrize("damage", ["a bit flipped", "cut", "its record gone"])
def test_a_shard_that_is_not_what_was_written_is_merged_again(case: Case, tmp_path: Path, damage: str) -> None:
    expected = merge(case, tmp_path)
    shard = sorted(shards_in(tmp_path).values())[3]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    if damage == "its record gone":
        (tmp_path / "done" / f"{shard.name}.json").unlink()
    else:
        shard.write_bytes(content if damage == "a bit flipped" else content[:-1])
    assert merge(case, tmp_path) == expected
    assert sha256_of(shard) == expected[shard.name].sha256


def test_a_volume_without_room_is_said_before_anything_is_written(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 1_500_000))
    with pytest.raises(StageError) as caught:
        merge(case, tmp_path)
    assert (caught.value.code, caught.value.reason) == (ExitCode.CANNOT_WRITE, "DiskFull")
    assert "needs 68.1 MB more on the workspace, which has 1.5 MB free: make the volume larger" in caught.value.message
    assert not list(tmp_path.rglob("*.safetensors*"))


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "volume"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_volume_that_fills_up_keeps_whole_shards_only(
    case: Case, small_volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = merge(case, tmp_path / "at-once")
    monkeypatch.setattr(Draft, "require_space", lambda *_: None)  # others fill the volume while we write
    with pytest.raises(OSError, match=r"\.safetensors\.partial") as caught:
        merge(case, small_volume)
    assert caught.value.errno == errno.ENOSPC
    said = understand(caught.value, "merge")
    assert (said.code, said.reason) == (ExitCode.CANNOT_WRITE, "DiskFull")
    assert not list(small_volume.glob("*.partial"))
    kept = shards_in(small_volume)
    assert 0 < len(kept) < len(expected)
    assert all(sha256_of(shard) == expected[name].sha256 for name, shard in kept.items())
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_volume)], check=True)
    assert merge(case, small_volume) == expected


def test_a_base_that_shrinks_under_the_merge_is_an_error_that_names_it(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(case.base, base)
    shard = max(base.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    read = os.preadv

    def cut_first(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        os.truncate(shard, 4096)
        return read(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", cut_first)
    with pytest.raises(OSError, match=rf"became shorter.*{shard.name}"):
        victim.merge(base, case.adapter / ADAPTER_FILE, case.scale, tmp_path / "draft")
    assert shard.name not in shards_in(tmp_path / "draft")
