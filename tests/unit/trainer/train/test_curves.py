"""The same run in another shape learns the same: ranks, accumulation, micro-batches, workers, activations."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.trainer.gang import Heads, prepared, train
from tests.unit.trainer.ranks import Ranks
from tests.unit.trainer.workshop import Workshop

pytestmark = pytest.mark.slow

Curve = list[float]
Run = Callable[..., Curve]

STEPS = 4
PLAIN: Heads = {"training": {"maxSteps": STEPS, "globalBatchSize": 4, "learningRate": "0.01"}}
"""Without dropout, whose masks depend on the rank."""

UNTRAINED = """
from falcon_trainer.data.store import PackedRows
def row(self, index, original=PackedRows.row):
    found = original(self, index)
    if index % 2:
        found["labels"][:] = -100
    return found
PackedRows.row = row
"""
"""Every other row trains nothing, so that micro-batches of one row often have no trained token."""

WORKERS = """
from falcon_trainer.launcher.processes import descendants
from falcon_trainer.train.loop import FalconTrainer
from falcon_trainer.train.report import Reporter
def stepped(self, step, *figures, original=Reporter.stepped, **named):
    original(self, step, *figures, **named)
    assert step > 1 or len(descendants(os.getpid())) == config.training.data_loader_workers
def train_all(self, *arguments, original=FalconTrainer.train, **named):
    ended = original(self, *arguments, **named)
    assert not descendants(os.getpid()), "processes that gathered rows are left behind"
    return ended
Reporter.stepped, FalconTrainer.train = stepped, train_all
"""

STOP_GROUP = """
import signal, time
from falcon_trainer.launcher.processes import descendants
from falcon_trainer.train.report import Reporter
os.setpgid(0, 0)
def stepped(self, step, *figures, original=Reporter.stepped, **named):
    original(self, step, *figures, **named)
    if rank == 1 and step == 1:
        workers = descendants(os.getpid())
        assert len(workers) == 2, workers
        os.killpg(0, signal.SIGTERM)
        time.sleep(1)  # a worker that dies of it has died by now
        assert descendants(os.getpid()) == workers
Reporter.stepped = stepped
"""
"""As torchrun stops a rank: by a signal to its process group."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return prepared(tmp_path_factory.mktemp("curves"), PLAIN)


def forget(shop: Workshop) -> None:
    """Removes what an earlier run of the workshop left, but for its data."""
    for name in ("adapter", "attempts", "report"):
        shutil.rmtree(shop.layout.root / name, ignore_errors=True)


def curve(shop: Workshop) -> Curve:
    lines = [json.loads(line) for line in (shop.layout.report / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def run(shop: Workshop, gang: Ranks) -> Run:
    def trained(ranks: int, before: str = "", **training: Any) -> Curve:
        forget(shop)
        settings = {**PLAIN, "training": PLAIN["training"] | training}
        ended = train(shop, settings, gang, before, ranks=ranks)
        assert "result" in ended, ended
        return curve(shop)

    return trained


@pytest.fixture(scope="module")
def reference(run: Run) -> Curve:
    """One rank that accumulates four micro-batches of one row, with neither workers nor activation checkpoints."""
    losses = run(1, activationCheckpointing="none")
    assert losses[-1] < losses[0] - 0.1, "nothing was learned, so equal curves would show nothing"
    return losses


def difference(one: Curve, other: Curve) -> float:
    assert len(one) == len(other) == STEPS
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


SHAPES: dict[str, tuple[int, str, dict[str, Any]]] = {
    "two ranks that accumulate two micro-batches": (2, "", {}),
    "four rows in one micro-batch": (1, "", {"microBatchSize": 4}),
    "one worker gathers rows": (1, WORKERS, {"dataLoaderWorkers": 1}),
    "four workers of each of two ranks gather rows": (2, WORKERS, {"dataLoaderWorkers": 4}),
    "activations checkpointed": (1, "", {"activationCheckpointing": "full"}),
    "activations kept selectively, two ranks": (2, "", {"activationCheckpointing": "selective"}),
}


@pytest.mark.parametrize(("ranks", "before", "training"), SHAPES.values(), ids=SHAPES.keys())
def test_the_loss_of_every_step_is_the_same(
    run: Run, reference: Curve, ranks: int, before: str, training: dict[str, Any]
) -> None:
    assert difference(run(ranks, before, **({"activationCheckpointing": "none"} | training)), reference) <= 1e-5


def test_micro_batches_without_a_trained_token_change_nothing(run: Run, reference: Curve) -> None:
    apart = run(2, UNTRAINED)
    assert difference(apart, run(1, UNTRAINED, microBatchSize=4)) <= 1e-5
    assert difference(apart, reference) > 1e-3, "no row was taken out of the loss"


def test_a_stop_of_the_process_group_spares_the_workers_until_the_rank_has_saved(shop: Workshop, gang: Ranks) -> None:
    forget(shop)
    settings = {**PLAIN, "training": PLAIN["training"] | {"dataLoaderWorkers": 2}}
    ended = train(shop, settings, gang, STOP_GROUP)
    assert ended.get("reason") == "Stopped", ended
    assert [path.name for path in shop.layout.attempts.glob("*/checkpoint-*")] == [f"checkpoint-{ended['step']}"]
