"""Writing in the background: one at a time, durable or told why not, and never in the way of a fork."""

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors import SafetensorError

from falcon_trainer.artifacts import draft_beside
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train import writer as writers
from falcon_trainer.train.background import BackgroundWriter
from falcon_trainer.train.checkpoint import TRAINED, newest_valid, read_trained
from falcon_trainer.train.writer import CheckpointWriter, Snapshot

PATIENCE = 120.0
"""Seconds until a test gives up; nothing waits that long where all is well."""
IDENTITY = "ours"


def snapshot(step: int) -> Snapshot:
    tensors = {"weight.fp32": torch.full((2, 2), float(step))}
    return Snapshot(step, tensors, '{"adamStep": 1}', "{}", [{"cpu": torch.get_rng_state()}])


def background(save: Callable[[Snapshot], object], *, durable_step: int = 0) -> BackgroundWriter:
    """One whose writer does only this."""

    class Scripted:
        def save(self, snapshot: Snapshot) -> object:
            return save(snapshot)

    return BackgroundWriter(cast(CheckpointWriter, Scripted()), durable_step=durable_step)


def test_a_checkpoint_is_durable_only_once_it_is_written() -> None:
    may_end = threading.Event()
    writing = background(lambda _: may_end.wait(PATIENCE), durable_step=5)
    writing.begin(snapshot(10))
    assert writing.busy
    assert writing.settle(patience=0.0) == 5, "it did not wait any longer than it may"
    may_end.set()
    assert writing.settle() == 10
    assert not writing.busy


def test_between_two_writes_there_is_no_thread_that_a_fork_could_meet() -> None:
    before = threading.active_count()
    writing = background(lambda _: None)
    writing.begin(snapshot(1))
    writing.settle()
    assert threading.active_count() == before


def test_a_second_write_beside_the_first_is_a_mistake_of_the_caller() -> None:
    may_end = threading.Event()
    writing = background(lambda _: may_end.wait(PATIENCE))
    writing.begin(snapshot(1))
    with pytest.raises(AssertionError):
        writing.begin(snapshot(2))
    may_end.set()
    writing.settle()


def test_a_failure_waits_until_it_is_asked_for_and_is_told_each_time() -> None:
    def fail(_: Snapshot) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/workspace/x")

    writing = background(fail, durable_step=5)
    writing.begin(snapshot(10))
    for _ in range(2):
        with pytest.raises(StageError) as raised:
            writing.settle()
        assert (raised.value.code, raised.value.reason) == (ExitCode.CANNOT_WRITE, "DiskFull")
    assert writing.failed
    assert writing.durable_step == 5


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The file of this name lies on a device on which no byte has room. safetensors replaces what lies there: in its
    place comes the error that it was seen to raise on a full tmpfs.
    """

    def refuse(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def draft(final: Path) -> Path:
        folder = draft_beside(final)
        (folder / name).symlink_to("/dev/full")
        return folder

    if name == TRAINED:
        monkeypatch.setattr("safetensors.torch.save_file", refuse)
    else:
        monkeypatch.setattr(writers, "draft_beside", draft)


@pytest.mark.parametrize("name", [TRAINED, "state.json", "rng_state.pth", "manifest.json"])
def test_a_full_disk_is_told_as_such_leaves_no_draft_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    layout = RunLayout("run", tmp_path)
    writing = BackgroundWriter(CheckpointWriter(layout, layout.incarnation(1, "pod"), IDENTITY, keep=1))
    writing.begin(snapshot(5))
    assert writing.settle() == 5
    fill_the_disk(monkeypatch, name)
    writing.begin(snapshot(10))
    with pytest.raises(StageError) as raised:
        writing.settle()
    assert (raised.value.code, raised.value.reason) == (ExitCode.CANNOT_WRITE, "DiskFull")
    assert [path.name for path in layout.incarnation(1, "pod").iterdir()] == ["checkpoint-5"]
    newest = newest_valid(layout, IDENTITY)
    assert newest
    tensors, state = read_trained(newest.path)
    assert torch.equal(tensors["weight.fp32"], torch.full((2, 2), 5.0))
    assert state == {"adamStep": 1}
