"""Real ranks whose loss is no number, and real ranks of which one is slow."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from falcon_trainer.identity import digest_of, identity_of
from falcon_trainer.train.finite import Figures
from falcon_trainer.train.order import RowOrder
from falcon_trainer.train.skipped import SkippedBatch, add_skipped, read_skipped
from tests.unit.trainer.gang import Heads, adapter, prepared, train
from tests.unit.trainer.ranks import Ranks
from tests.unit.trainer.workshop import Workshop

pytestmark = pytest.mark.slow

BATCH = 4
TRAINING = {
    "maxSteps": 6,
    "globalBatchSize": BATCH,
    "learningRate": "0.003",
    "scheduler": "cosine",
    "checkpoint": {"everySteps": 2},
    "onNonFinite": "skipBatch",
}
SETTINGS: Heads = {"training": TRAINING, "lora": {"rank": 4, "alpha": 8, "dropout": "0.1"}}
SEEN = """
from falcon_trainer.train.order import TrainingRows
def seen(self, place, original=TrainingRows.__getitem__):
    with (RUNTIME / f"places-{rank}.txt").open("a") as file:
        print(place, self._order.row(place), file=file)
    return original(self, place)
TrainingRows.__getitem__ = seen
"""
INFINITE_AT = """
from falcon_trainer.train import divergence
def take(self, figures, original=divergence.LossCheck.take):
    from dataclasses import replace
    original(self, replace(figures, loss=float("inf")) if figures.step == STEP else figures)
divergence.LossCheck.take = take
"""
SLOW_RANK_1 = """
from falcon_trainer.train import probe, straggler
probe.MatrixProbe.__call__ = lambda self: 1.0 + 3.0 * rank
probe.STEPS_APART = straggler.STEPS_APART = 1
straggler.PERIOD = 0.0
os.environ["FALCON_NODE"] = f"node-{rank}"
"""

Skipping = tuple[Workshop, dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return prepared(tmp_path_factory.mktemp("data"), SETTINGS)


@pytest.fixture(scope="module")
def skipping(data: Workshop, tmp_path_factory: pytest.TempPathFactory, gang: Ranks) -> Skipping:
    """A run whose loss was infinite at step 4: how that attempt ended, and how the next one did."""
    shop = copied(data, tmp_path_factory.mktemp("skipping"))
    first = train(shop, SETTINGS, gang, INFINITE_AT.replace("STEP", "4"))
    (shop.root / "runtime").rename(shop.root / "runtime-1")
    return shop, first, train(shop, SETTINGS, gang, SEEN)


@pytest.fixture(scope="module")
def plain(data: Workshop, tmp_path_factory: pytest.TempPathFactory, gang: Ranks) -> Workshop:
    """A run to which nothing happens."""
    shop = copied(data, tmp_path_factory.mktemp("plain"))
    train(shop, SETTINGS, gang)
    return shop


def copied(origin: Workshop, root: Path) -> Workshop:
    shutil.copytree(origin.root, root, dirs_exist_ok=True)
    return Workshop(root)


def beat(shop: Workshop, rank: int, runtime: str = "runtime") -> dict[str, Any]:
    """The rank's last one."""
    told: dict[str, Any] = json.loads((shop.root / runtime / f"beat-{rank}.json").read_text())
    return told


def identity(shop: Workshop) -> str:
    return digest_of(identity_of(shop.config(**SETTINGS)))


def same(one: Workshop, other: Workshop) -> bool:
    ours, theirs = adapter(one), adapter(other)
    return all(torch.equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())


def seen_rows(shop: Workshop) -> list[int]:
    """The rows that all ranks gathered, sorted."""
    files = (shop.root / "runtime").glob("places-*.txt")
    return sorted(int(line.split()[1]) for file in files for line in file.read_text().splitlines())


def order(shop: Workshop, *skipped: int) -> RowOrder:
    rows = json.loads((shop.layout.data / "manifest.json").read_text())["facts"]["figures"]["sequences"]
    return RowOrder(int(rows), 42, BATCH, skipped)


def test_the_attempt_ends_as_one_to_be_tried_again_and_writes_down_the_batch(skipping: Skipping) -> None:
    shop, first, _ = skipping
    assert (first["code"], first["reason"], first["step"]) == (75, "LossNotFinite", 4)
    rows = order(shop).of_step(4)
    assert f"rows {rows[0]} (document" in first["message"]
    (batch,) = read_skipped(shop.layout, identity(shop))
    assert (batch.batch, batch.step, batch.rows, batch.loss) == (3, 4, rows, "inf")


def test_nothing_of_the_step_was_saved(skipping: Skipping) -> None:
    steps = sorted(int(path.name.split("-")[1]) for path in skipping[0].layout.attempts.glob("*/checkpoint-*"))
    assert steps == [2, 4, 6]
    last = beat(skipping[0], 0, "runtime-1")
    assert (last["step"], last["lastCheckpointStep"]) == (3, 2)


def test_the_next_attempt_trains_all_steps_without_that_batch(skipping: Skipping) -> None:
    shop, _, second = skipping
    assert second["result"]["step"] == 6
    uncut = order(shop)
    assert seen_rows(shop) == sorted(row for batch in (2, 4, 5, 6) for row in uncut.of_step(batch + 1))
    (notice,) = beat(shop, 0)["notices"]
    assert notice["reason"] == "BatchSkipped"
    assert notice["message"].startswith("step 4 is trained without the global batch")
    assert json.loads((shop.layout.report / "facts.json").read_text())["skipped"] == [4]


def test_it_ends_with_the_adapter_of_a_run_that_never_met_the_batch(
    skipping: Skipping, data: Workshop, tmp_path: Path, gang: Ranks
) -> None:
    """Bit for bit: the first attempt of this run knows already what to leave out."""
    shop = copied(data, tmp_path)
    figures = Figures(step=4, loss=float("inf"), gradient_norm=1.0, learning_rate=0.003)
    add_skipped(shop.layout, identity(shop), SkippedBatch.of(figures, 3, order(shop).of_step(4)))
    assert train(shop, SETTINGS, gang)["result"]["loss"] == skipping[2]["result"]["loss"]
    assert same(shop, skipping[0])


def test_a_resume_behind_the_skipped_batch_is_exact_and_tells_of_it_no_more(
    skipping: Skipping, tmp_path: Path, gang: Ranks
) -> None:
    shop = copied(skipping[0], tmp_path)
    shutil.rmtree(shop.layout.root / "adapter")
    shutil.rmtree(next(shop.layout.attempts.glob("*/checkpoint-6")))
    shutil.rmtree(shop.root / "runtime")
    train(shop, SETTINGS, gang, SEEN)
    uncut = order(shop)
    assert seen_rows(shop) == sorted(uncut.of_step(6) + uncut.of_step(7))
    assert same(shop, skipping[0])
    assert beat(shop, 0)["notices"] == []


def test_the_comparison_notices_another_batch(skipping: Skipping, plain: Workshop) -> None:
    """The control of the tests above."""
    assert not same(plain, skipping[0])


def test_a_slow_rank_is_named_once_and_training_does_not_notice_the_looks(
    plain: Workshop, data: Workshop, tmp_path: Path, gang: Ranks
) -> None:
    shop = copied(data, tmp_path)
    train(shop, SETTINGS, gang, SLOW_RANK_1)
    told = beat(shop, 0)
    assert [notice["reason"] for notice in told["notices"]] == ["SlowRank"]
    assert told["notices"][0]["message"].startswith("rank 1 (node node-1) takes 4.0 times as long as usual")
    assert told["message"] == "rank 1 (node node-1) is slow: it computes 4.0 times as long as usual"
    assert beat(shop, 1)["notices"] == []
    assert same(shop, plain)
