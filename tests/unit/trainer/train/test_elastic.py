"""A checkpoint knows no world size: what two ranks saved goes on in one or in three, and ends with the same adapter.

Without dropout, whose masks depend on the rank. At the same world size a resume is exact to the last bit, with dropout
and with everything offloaded: `test_gang.py` holds that.
"""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from falcon_trainer.artifacts import read_manifest, sha256_of
from falcon_trainer.layout import MANIFEST
from falcon_trainer.train.checkpoint import TRAINED
from tests.unit.trainer.gang import Heads, from_step_3, largest_difference, prepared, train
from tests.unit.trainer.ranks import Ranks
from tests.unit.trainer.workshop import Workshop

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
PLAIN: Heads = {
    "training": {
        "maxSteps": 6,
        "globalBatchSize": 6,
        "learningRate": "0.003",
        "scheduler": "cosine",
        "warmupSteps": 2,
        "checkpoint": {"everySteps": 3},
    },
}
OFFLOADED: Heads = {
    "training": PLAIN["training"] | {"deepspeed": {"offloadParameters": "cpu", "offloadOptimizer": "cpu"}},
}
MODES = {"on the ranks": PLAIN, "offloaded to host memory": OFFLOADED}
Run = tuple[Workshop, Heads]


@pytest.fixture(scope="module", params=list(MODES.values()), ids=list(MODES))
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, gang: Ranks) -> Run:
    """A run of six steps on two ranks without a break."""
    settings: Heads = request.param
    shop = prepared(tmp_path_factory.mktemp("elastic"), settings)
    assert "result" in train(shop, settings, gang)
    return shop, settings


def forget_the_moments(shop: Workshop) -> None:
    """Sets Adam's moments to zero in the checkpoint, whose manifest then says that this was written."""
    checkpoint = next(shop.layout.attempts.glob("*/checkpoint-3"))
    tensors = load_file(checkpoint / TRAINED)
    save_file({n: t.zero_() if ".exp_avg" in n else t for n, t in tensors.items()}, checkpoint / TRAINED)
    manifest = read_manifest(checkpoint)
    assert manifest
    entry = manifest.files[TRAINED].model_copy(update={"sha256": sha256_of(checkpoint / TRAINED)})
    changed = manifest.model_copy(update={"files": manifest.files | {TRAINED: entry}})
    (checkpoint / MANIFEST).write_bytes(changed.encode())


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_goes_on_in_another_number_of_ranks(undisturbed: Run, tmp_path: Path, gang: Ranks, ranks: int) -> None:
    origin, settings = undisturbed
    shop = from_step_3(origin, tmp_path)
    ended = train(shop, settings, gang, ranks=ranks)
    assert ended["result"]["step"] == 6
    assert largest_difference(shop, origin) <= TOLERANCE


def test_lost_adam_moments_would_be_noticed(undisturbed: Run, tmp_path: Path, gang: Ranks) -> None:
    """The control of the test above, and of those of `test_gang.py`."""
    origin, settings = undisturbed
    shop = from_step_3(origin, tmp_path)
    forget_the_moments(shop)
    train(shop, settings, gang, ranks=1)
    assert largest_difference(shop, origin) > 10 * TOLERANCE
