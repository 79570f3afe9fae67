"""Two real ranks: loading, training, resuming, offload, stopping. The slowest tests of the trainer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from falcon_trainer.artifacts import read_manifest
from tests.unit.trainer.gang import Heads, adapter, from_step_3, largest_difference, prepared, train
from tests.unit.trainer.ranks import Ranks
from tests.unit.trainer.workshop import Workshop

pytestmark = pytest.mark.slow

Finished = tuple[Workshop, dict[str, Any]]

LOAD = """
from pathlib import Path
import deepspeed, torch
from transformers import AutoModelForCausalLM, TrainingArguments
from transformers.integrations.deepspeed import deepspeed_config as completed
from falcon_trainer.config import Training
from falcon_trainer.model.attention import sdpa_kernel
from falcon_trainer.model.load import load_partitioned
from falcon_trainer.model.shapes import falcon_config
from falcon_trainer.train.zero import deepspeed_config, initialise

initialise(gpu=False)
settings = deepspeed_config(Training(), gpu=False, cpu_adam=False)
arguments = TrainingArguments("out", use_cpu=True, deepspeed=settings, report_to=[])
for folder in map(Path, FOLDERS):
    stock = {}
    if torch.distributed.get_rank() == 0:
        import transformers.modeling_utils as utils
        held, utils.is_deepspeed_zero3_enabled = utils.is_deepspeed_zero3_enabled, lambda: False
        stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        utils.is_deepspeed_zero3_enabled = held
    model, report = load_partitioned(folder, falcon_config(folder), sdpa_kernel, completed(), torch.float32)
    assert report.largest_local == 0 and report.partition_bytes * 2 < report.base_bytes * 1.01
    for name, parameter in model.named_parameters():
        assert parameter.numel() == 0 and parameter.ds_numel > 0, name
        padding = max(0, parameter.ds_tensor.numel() * 2 - parameter.ds_numel)
        if padding and report.rank == 1:
            assert not parameter.ds_tensor[-padding:].any(), name
        with deepspeed.zero.GatheredParameters([parameter]):
            if stock:
                assert torch.equal(parameter.data, stock[name]), name
    assert (model.lm_head.weight is model.transformer.word_embeddings.weight) == model.config.tie_word_embeddings
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    assert not stock or names == stock.keys()
    rotary = model.transformer.rotary_emb.inv_freq
    assert not rotary.is_meta and float(rotary[0]) == 1.0
"""

SETTINGS: Heads = {
    "training": {
        "maxSteps": 6,
        "globalBatchSize": 4,
        "learningRate": "0.003",
        "scheduler": "cosine",
        "warmupSteps": 2,
        "checkpoint": {"everySteps": 3},
    },
    "lora": {"rank": 4, "alpha": 8, "dropout": "0.1"},
}
OFFLOADED: Heads = {
    **SETTINGS,
    "training": SETTINGS["training"] | {"deepspeed": {"offloadParameters": "cpu", "offloadOptimizer": "cpu"}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, dict[str, Any]]:
    """A run of six steps without a break, and its result."""
    shop = prepared(tmp_path_factory.mktemp("finished"), SETTINGS)
    return shop, train(shop, SETTINGS)["result"]


def test_every_rank_loads_its_slices_and_they_are_what_from_pretrained_loads(tmp_path: Path, gang: Ranks) -> None:
    tied, untied = Workshop(tmp_path / "tied"), Workshop(tmp_path / "untied")
    # 3 heads of 20: sizes that two ranks cannot share evenly, so that padding is there to be checked.
    odd = {"hidden_size": 60, "num_attention_heads": 3, "num_kv_heads": 1, "vocab_size": 401}
    folders = [str(tied.put_base()), str(untied.put_base(tie_word_embeddings=False, **odd))]
    tied.fork(gang, f"FOLDERS = {folders}\n{LOAD}", tied.config())


def test_training_learns_and_reports(finished: Finished) -> None:
    shop, result = finished
    lines = [json.loads(line) for line in (shop.layout.report / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[0]["learningRate"] < lines[1]["learningRate"] > lines[-1]["learningRate"]
    assert result["step"] == 6
    assert float(result["loss"]) == pytest.approx(lines[-1]["loss"], rel=1e-5)
    beat = json.loads((shop.root / "runtime" / "beat-0.json").read_text())
    assert (beat["phase"], beat["step"], beat["totalSteps"], beat["lastCheckpointStep"]) == ("save", 6, 6, 6)


def test_no_rank_ever_held_the_whole_base(finished: Finished) -> None:
    reports = [json.loads((finished[0].layout.report / f"load-{rank}.json").read_text()) for rank in (0, 1)]
    assert [report["largestLocal"] for report in reports] == [0, 0]
    assert all(report["partitionBytes"] <= report["baseBytes"] * 0.51 for report in reports)


def test_the_adapter_is_whole_and_loads_in_stock_peft(finished: Finished) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shop, result = finished
    folder = shop.layout.workspace / result["adapter"]["path"]
    manifest = read_manifest(folder)
    assert manifest
    assert result["adapter"]["digest"] == f"sha256:{manifest.digest}"
    assert folder.name == manifest.digest
    tensors = adapter(shop)
    assert len(tensors) == 2 * 4 * 2
    assert all(tensor.dim() == 2 and tensor.isfinite().all() and tensor.any() for tensor in tensors.values())
    base = AutoModelForCausalLM.from_pretrained(shop.sources / "models" / "base")
    model = PeftModel.from_pretrained(base, str(folder))
    loaded = {name: value for name, value in model.state_dict().items() if "lora_" in name}
    assert all(torch.equal(loaded[name.replace(".weight", ".default.weight")], tensors[name]) for name in tensors)
    assert "### Instruction" in AutoTokenizer.from_pretrained(folder).chat_template


def test_a_finished_adapter_is_found_again_without_training(finished: Finished, gang: Ranks) -> None:
    shop, result = finished
    forbid = "import falcon_trainer.model.load as load; load.load_partitioned = None"
    assert train(shop, SETTINGS, gang, forbid)["result"] == result


def test_a_resumed_run_ends_with_the_same_adapter_bit_for_bit(finished: Finished, tmp_path: Path, gang: Ranks) -> None:
    """Its control, that lost Adam moments would be noticed, is in `test_elastic.py`."""
    shop = from_step_3(finished[0], tmp_path)
    result = train(shop, SETTINGS, gang)["result"]
    assert largest_difference(shop, finished[0]) == 0
    assert (result["step"], result["loss"]) == (6, finished[1]["loss"])
    lines = [json.loads(line)["step"] for line in (shop.layout.report / "metrics.jsonl").read_text().splitlines()]
    assert lines == [1, 2, 3, 4, 5, 6]


def test_with_everything_offloaded_the_adapter_is_the_same_and_a_resume_is_exact(
    finished: Finished, tmp_path: Path, gang: Ranks
) -> None:
    whole = Workshop(tmp_path / "whole")
    shutil.copytree(finished[0].root, whole.root)
    shutil.rmtree(whole.layout.root / "adapter")
    shutil.rmtree(whole.layout.attempts)
    train(whole, OFFLOADED, gang)
    assert largest_difference(whole, finished[0]) < 1e-4  # another Adam, the same numbers
    resumed = from_step_3(whole, tmp_path / "resumed")
    train(resumed, OFFLOADED, gang)
    assert largest_difference(resumed, whole) == 0


def test_without_activation_checkpoints_the_adapter_is_the_same(
    finished: Finished, tmp_path: Path, gang: Ranks
) -> None:
    shop = from_step_3(finished[0], tmp_path)
    shutil.rmtree(shop.layout.attempts)
    plain = {**SETTINGS, "training": SETTINGS["training"] | {"activationCheckpointing": "none"}}
    train(shop, plain, gang)
    assert largest_difference(shop, finished[0]) < 1e-5


def test_a_stop_on_one_rank_saves_on_all_and_ends_as_stopped(finished: Finished, tmp_path: Path, gang: Ranks) -> None:
    shop = Workshop(tmp_path)
    shutil.copytree(finished[0].root, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(shop.layout.root / "adapter")
    shutil.rmtree(shop.layout.attempts)
    ask = """
from falcon_trainer.train.report import Reporter
import signal
def started(self, *known, original=Reporter.started):
    original(self, *known)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
Reporter.started = started
"""
    ended = train(shop, SETTINGS, gang, ask)
    assert (ended["code"], ended["reason"], ended["step"]) == (143, "Stopped", 1)
    assert [path.name for path in shop.layout.attempts.glob("*/checkpoint-*")] == ["checkpoint-1"]


def test_a_loss_that_is_no_number_ends_the_run_with_its_step(finished: Finished, tmp_path: Path, gang: Ranks) -> None:
    shop = from_step_3(finished[0], tmp_path)
    poison = """
from falcon_trainer.model.loss import LossHead
def forward(self, hidden, labels=None, tokens=None, original=LossHead.forward):
    return original(self, hidden, labels, tokens) * float("nan")
LossHead.forward = forward
"""
    ended = train(shop, SETTINGS, gang, poison)
    assert (ended["code"], ended["reason"], ended["step"]) == (64, "LossNotFinite", 4)
    assert "Lower training.learningRate" in ended["message"]
    assert "The step's global batch: rows " in ended["message"]
    assert [path.name for path in shop.layout.attempts.glob("*/checkpoint-*")] == ["checkpoint-3"]
    assert not shop.layout.skipped.exists()


def test_without_prepared_data_training_says_so(tmp_path: Path, gang: Ranks) -> None:
    ended = train(Workshop(tmp_path), {}, gang)
    assert (ended["code"], ended["reason"]) == (66, "NotPrepared")
