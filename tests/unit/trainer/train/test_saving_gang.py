"""Saving in real ranks: training goes on meanwhile, nothing durable is lost, and no number of the training changes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from falcon_trainer.train.checkpoint import TRAINED, found, newest_valid, read_trained
from tests.unit.trainer.gang import Heads, adapter, prepared, train
from tests.unit.trainer.ranks import Ranks
from tests.unit.trainer.workshop import Workshop

pytestmark = pytest.mark.slow

STEPS = 5


def settings(checkpoint: dict[str, int], **training: Any) -> Heads:
    common = {"maxSteps": STEPS, "globalBatchSize": 4, "learningRate": "0.003"}
    return {
        "training": common | {"checkpoint": {"keep": 9} | checkpoint} | training,
        "lora": {"rank": 4, "alpha": 8, "dropout": "0.1"},
    }


AT_THE_END = settings({"everySteps": 100})
AT_EVERY_STEP = settings({"everySteps": 1}, dataLoaderWorkers=2)
BY_MINUTES = settings({"everySteps": 100, "everyMinutes": 1})
AT_EVERY_OTHER_STEP = settings({"everySteps": 2})


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, gang: Ranks) -> Workshop:
    """A run that saves when it is over, and never before."""
    shop = prepared(tmp_path_factory.mktemp("quiet"), AT_THE_END)
    assert "result" in train(shop, AT_THE_END, gang)
    return shop


def anew(origin: Workshop, root: Path) -> Workshop:
    """The run as it was prepared."""
    shutil.copytree(origin.root, root, dirs_exist_ok=True)
    shop = Workshop(root)
    for folder in (shop.layout.root / "adapter", shop.layout.attempts, shop.layout.report, shop.root / "runtime"):
        shutil.rmtree(folder, ignore_errors=True)
    return shop


def assert_same_adapter(one: Workshop, other: Workshop) -> None:
    ours, theirs = adapter(one), adapter(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def beat(shop: Workshop, rank: int = 0) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((shop.root / "runtime" / f"beat-{rank}.json").read_text())
    return said


# Each write is over only when training waits for it; rank 0 falls while the checkpoint of step 3 is written.
SLOW_DISK = """
import threading
from falcon_trainer.outcome import ExitCode
from falcon_trainer.train.report import Reporter
from falcon_trainer.train.writer import CheckpointWriter
awaited, told = threading.Event(), {}
def save(self, snapshot, original=CheckpointWriter.save):
    assert awaited.wait(300), "nobody waited for the checkpoint"
    awaited.clear()
    return original(self, snapshot)
def saving(self, original=Reporter.saving):
    original(self)
    if beat().get("step", 0) > 1:  # nothing is written yet when the first save begins
        awaited.set()
def beat():
    return json.loads((RUNTIME / f"beat-{rank}.json").read_text())
def stepped(self, step, *figures, original=Reporter.stepped):
    original(self, step, *figures)
    told[step] = beat().get("lastCheckpointStep")
    (RUNTIME / f"told-{rank}.json").write_text(json.dumps(told))
    if step == 4:
        raise StageError(ExitCode.INTERNAL, "Fell", "as a pod would")
CheckpointWriter.save, Reporter.saving, Reporter.stepped = save, saving, stepped
"""


@pytest.fixture(scope="module")
def fallen(quiet: Workshop, tmp_path_factory: pytest.TempPathFactory, gang: Ranks) -> Workshop:
    """A run that saves at every step, slowly, and raises at step 4."""
    shop = anew(quiet, tmp_path_factory.mktemp("fallen"))
    assert train(shop, AT_EVERY_STEP, gang, SLOW_DISK)["reason"] == "Fell"
    return shop


def test_training_goes_on_while_a_checkpoint_is_written_and_tells_it_once_it_is_durable(fallen: Workshop) -> None:
    for rank in (0, 1):
        told = json.loads((fallen.root / "runtime" / f"told-{rank}.json").read_text())
        assert told == {"1": None, "2": None, "3": 1, "4": 2}, f"rank {rank}"


def test_a_rank_that_falls_finishes_the_checkpoint_that_is_being_written(fallen: Workshop) -> None:
    assert [checkpoint.step for checkpoint in found(fallen.layout)] == [3, 2, 1]
    assert beat(fallen)["lastCheckpointStep"] == 3


def test_after_a_damaged_checkpoint_the_one_before_is_used_and_the_operator_hears_of_it(
    fallen: Workshop, quiet: Workshop, tmp_path: Path, gang: Ranks
) -> None:
    shop = anew(fallen, tmp_path)
    shutil.copytree(fallen.layout.attempts, shop.layout.attempts)
    damaged = found(shop.layout)[0].path / TRAINED
    damaged.write_bytes(damaged.read_bytes()[:-1])
    train(shop, AT_EVERY_STEP, gang)
    said = beat(shop)
    assert said["resumedFromStep"] == 2
    (notice,) = said["notices"]
    assert notice["reason"] == "CheckpointDamaged"
    assert "checkpoint-3 is damaged and was put aside" in notice["message"]
    assert "notices" not in beat(shop, rank=1) or not beat(shop, rank=1)["notices"]
    assert_same_adapter(shop, quiet)


HALF_A_MINUTE_A_LOOK = """
from itertools import count
from falcon_trainer.train.saving import Saving
def started(self, original=Saving.started):
    seconds = count(0, 30)
    self._clock = lambda: next(seconds)
    original(self)
Saving.started = started
"""


def test_minutes_are_the_clock_of_rank_0_and_change_no_number(quiet: Workshop, tmp_path: Path, gang: Ranks) -> None:
    shop = anew(quiet, tmp_path)
    train(shop, BY_MINUTES, gang, HALF_A_MINUTE_A_LOOK)
    # Looks: at the begin, at each step's end, and at each save.
    assert [checkpoint.step for checkpoint in found(shop.layout)] == [5, 4, 2]
    assert_same_adapter(shop, quiet)


FULL_AT_STEP_4 = """
from falcon_trainer.train import writer
def draft_beside(final, original=writer.draft_beside):
    draft = original(final)
    if final.name == "checkpoint-4":
        (draft / "state.json").symlink_to("/dev/full")
    return draft
writer.draft_beside = draft_beside
"""


def test_a_full_disk_ends_the_run_on_all_ranks_and_the_last_checkpoint_is_whole(
    quiet: Workshop, tmp_path: Path, gang: Ranks
) -> None:
    shop = anew(quiet, tmp_path)
    ended = train(shop, AT_EVERY_OTHER_STEP, gang, FULL_AT_STEP_4)
    assert (ended["code"], ended["reason"]) == (73, "DiskFull")
    newest = newest_valid(shop.layout, str(found(shop.layout)[0].facts["identity"]))
    assert newest
    assert newest.step == 2
    tensors, state = read_trained(newest.path)
    assert state["adamStep"] == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert beat(shop)["lastCheckpointStep"] == 2
    assert not list(shop.layout.attempts.glob("*/.*")), "a half-written one still takes up room"
