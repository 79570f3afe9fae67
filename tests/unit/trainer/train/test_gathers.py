"""Activation checkpointing and the frozen head under ZeRO-3, in two ranks: what is gathered, and what is learned."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.trainer.gang import Heads, prepared, train
from tests.unit.trainer.ranks import Ranks
from tests.unit.trainer.workshop import Workshop

pytestmark = pytest.mark.slow

LAYERS, MICRO_BATCHES = 2, 2
SETTINGS: Heads = {
    "training": {"maxSteps": 3, "globalBatchSize": 2 * MICRO_BATCHES, "learningRate": "0.003"},
    "lora": {"rank": 4, "alpha": 8, "dropout": "0.1"},
}

COUNTING = """
from collections import Counter
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator as Coordinator
from falcon_trainer.train import stage
from falcon_trainer.train.report import Reporter

# As with a layer of billions: nothing is kept from one use to the next, unless they follow each other at once.
SMALL = {"stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 1000, "stage3_param_persistence_threshold": 0,
         "stage3_prefetch_bucket_size": 0}
def settings(*arguments, original=stage.deepspeed_config, **named):
    made = original(*arguments, **named)
    made["zero_optimization"] |= SMALL
    return made
stage.deepspeed_config = settings

gathered = Counter()
def gather(self, parameters, forward, original=Coordinator._PartitionedParameterCoordinator__all_gather_params):
    for parameter in parameters:
        if parameter.ds_status == ZeroParamStatus.NOT_AVAILABLE:
            gathered["x".join(map(str, parameter.ds_shape)) + (" forward" if forward else " backward")] += 1
    return original(self, parameters, forward)
Coordinator._PartitionedParameterCoordinator__all_gather_params = gather
def stepped(self, step, *figures, original=Reporter.stepped, **named):
    original(self, step, *figures, **named)
    (RUNTIME / f"gathered-{rank}-{step}.json").write_text(json.dumps(gathered))
    gathered.clear()
Reporter.stepped = stepped
"""

MODES: dict[str, dict[str, Any]] = {
    "none": {"activationCheckpointing": "none"},
    "full": {"activationCheckpointing": "full"},
    "selective": {"activationCheckpointing": "selective"},
    "first layer selective": {"activationCheckpointing": "selective", "selectiveLayers": 1},
}
TRAINED_LATER = 3
"""A step at which DeepSpeed knows the order of modules; in the first one it learns it."""


class Run:
    """What one run gathered and learned."""

    def __init__(self, shop: Workshop) -> None:
        counted = (shop.root / "runtime" / f"gathered-0-{TRAINED_LATER}.json").read_text()
        self.gathered: Counter[str] = Counter(json.loads(counted))
        self.adapter = load_file(next(shop.layout.root.glob("adapter/*/adapter_model.safetensors")))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, gang: Ranks) -> dict[str, Run]:
    shop = prepared(tmp_path_factory.mktemp("gathers"), SETTINGS)
    done = {}
    for name, mode in MODES.items():
        for left in ("adapter", "attempts"):
            shutil.rmtree(Path(shop.layout.root) / left, ignore_errors=True)
        ended = train(shop, {**SETTINGS, "training": SETTINGS["training"] | mode}, gang, COUNTING)
        assert "result" in ended, ended
        done[name] = Run(shop)
    return done


def times(run: Run, shape: str) -> tuple[int, int]:
    """Gathers of a matrix of this shape while layers run (forward pass and recomputation), and in the backward pass."""
    return run.gathered[f"{shape} forward"], run.gathered[f"{shape} backward"]


def test_with_dropout_the_adapter_is_the_same_bit_for_bit(runs: dict[str, Run]) -> None:
    expected = runs["none"].adapter
    assert any(bool(tensor.any()) for name, tensor in expected.items() if "lora_B" in name)
    for run in runs.values():
        assert all(torch.equal(run.adapter[name], tensor) for name, tensor in expected.items())


def test_the_head_is_gathered_once_for_all_chunks_of_a_forward_pass_and_not_for_the_backward_pass(
    runs: dict[str, Run],
) -> None:
    # Twice: the head is also the embedding, which is gathered at the other end of the model.
    assert all(times(run, "400x64") == (2 * MICRO_BATCHES, 0) for run in runs.values())


def test_full_checkpointing_gathers_each_matrix_three_times_and_selective_twice(runs: dict[str, Run]) -> None:
    h_to_4h, passes = "256x64", LAYERS * MICRO_BATCHES
    first_layer = MICRO_BATCHES  # its input needs no gradient, so its backward pass may do without the matrix
    for name, recomputed in (("none", 0), ("selective", 0), ("first layer selective", 1), ("full", LAYERS)):
        forward, backward = times(runs[name], h_to_4h)
        assert forward == passes + recomputed * MICRO_BATCHES, name
        assert passes - first_layer <= backward <= passes, name
