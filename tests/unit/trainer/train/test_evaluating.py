"""Real ranks that measure themselves on validation rows: what is measured, what stays, when it ends, how it goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from falcon_trainer.data.store import PackedRows
from falcon_trainer.model.lora import ADAPTER_FILE, saved_name
from falcon_trainer.train.checkpoint import TRAINED, found
from tests.unit.trainer.gang import Heads, prepared, train
from tests.unit.trainer.ranks import Ranks
from tests.unit.trainer.workshop import Workshop

pytestmark = pytest.mark.slow

FIVE_OF_TWELVE = {"fraction": "0.42"}
"""A number of rows that neither two nor three ranks share evenly."""


def settings(**training: Any) -> Heads:
    return {
        "training": {
            "maxSteps": 6,
            "globalBatchSize": 6,
            "learningRate": "0.01",
            "checkpoint": {"everySteps": 3},
            "evaluation": {"everySteps": 2},
        }
        | training,
        "lora": {"rank": 4, "alpha": 8, "dropout": "0.1"},
        "dataset": {
            "sources": [{"uri": "pvc://data/records.jsonl"}],
            "sequenceLength": 96,
            "packing": "none",
            "validation": FIVE_OF_TWELVE,
        },
    }


def copied(origin: Workshop, root: Path) -> Workshop:
    """The run as it was prepared: without what training left."""
    shutil.copytree(origin.root, root, dirs_exist_ok=True)
    shop = Workshop(root)
    for folder in (shop.layout.root / "adapter", shop.layout.attempts, shop.layout.report):
        shutil.rmtree(folder, ignore_errors=True)
    return shop


def lines(shop: Workshop, field: str) -> dict[int, float]:
    """A field of metrics.jsonl by step."""
    text = (shop.layout.report / "metrics.jsonl").read_text()
    return {line["step"]: line[field] for line in map(json.loads, text.splitlines()) if field in line}


def steps_kept(shop: Workshop) -> list[int]:
    return [checkpoint.step for checkpoint in found(shop.layout)]


def weights_of(shop: Workshop, step: int) -> dict[str, torch.Tensor]:
    """The trained tensors of the newest checkpoint of a step, moments included."""
    path = next(checkpoint.path for checkpoint in found(shop.layout) if checkpoint.step == step)
    tensors: dict[str, torch.Tensor] = load_file(path / TRAINED)
    return tensors


def master_weights(shop: Workshop, step: int) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights_of(shop, step).items() if name.endswith(".fp32")}


def published(shop: Workshop, result: dict[str, Any]) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(shop.layout.workspace / result["adapter"]["path"] / ADAPTER_FILE)
    return tensors


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def loss_of_stock_peft(shop: Workshop, adapter: Path) -> float:
    """Mean loss over the trained tokens of the validation documents, each read alone by the published libraries."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(shop.sources / "models" / "base")
    model, total, tokens = PeftModel.from_pretrained(base, str(adapter)).eval(), 0.0, 0
    packed = PackedRows(shop.layout.validation)
    assert len(packed) == 5
    for number in range(len(packed)):
        row = {name: torch.from_numpy(value)[None] for name, value in packed.row(number).items()}
        with torch.no_grad():
            logits = model(input_ids=row["input_ids"]).logits[0, :-1].double()
        wanted = row["labels"][0, 1:]
        total += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
        tokens += int((wanted >= 0).sum())
    return total / tokens


Finished = tuple[Workshop, dict[str, Any]]


def assert_equal_but_for_its_place(one: Finished, other: Finished) -> None:
    """Results and adapters are equal; the adapters' digests are not, because they name the folder of the base."""
    assert one[1] | {"adapter": None} == other[1] | {"adapter": None}
    assert same(published(*one), published(*other))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, gang: Ranks) -> Finished:
    """A run of six steps on two ranks, measured after steps 2, 4 and 6."""
    shop = prepared(tmp_path_factory.mktemp("measured"), settings())
    return shop, train(shop, settings(), gang)["result"]


def test_the_model_is_measured_so_often_and_at_the_end_and_all_of_it_is_told(measured: Finished) -> None:
    shop, result = measured
    losses = lines(shop, "evaluationLoss")
    assert list(losses) == [2, 4, 6]
    assert losses[2] > losses[4] > losses[6]
    told = {name: result[name] for name in ("step", "bestStep", "adapterStep", "evaluationLoss", "stoppedEarly")}
    expected = f"{losses[6]:.6g}"
    assert told == {"step": 6, "bestStep": 6, "adapterStep": 6, "evaluationLoss": expected, "stoppedEarly": False}
    for rank in (0, 1):
        beat = json.loads((shop.root / "runtime" / f"beat-{rank}.json").read_text())
        assert (beat["evaluationLoss"], beat["bestStep"], beat["totalSteps"]) == (losses[6], 6, 6)
    assert steps_kept(shop) == [6, 4, 3]  # everySteps 3, and the best so far at 2, which three newer ones pushed out


def test_the_loss_is_what_stock_peft_gives_for_each_document_alone(measured: Finished) -> None:
    shop, result = measured
    reference = loss_of_stock_peft(shop, shop.layout.workspace / result["adapter"]["path"])
    assert lines(shop, "evaluationLoss")[6] == pytest.approx(reference, abs=1e-6)


def test_training_with_evaluations_is_step_for_step_the_one_without(
    measured: Finished, tmp_path: Path, gang: Ranks
) -> None:
    """With dropout: an evaluation that drew a random number, or left dropout on, would show."""
    shop = copied(measured[0], tmp_path)
    train(shop, settings(), gang, "import falcon_trainer.train.evaluation as e; e.due = lambda step, *_: step == 6")
    assert list(lines(shop, "evaluationLoss")) == [6]
    assert lines(shop, "loss") == lines(measured[0], "loss")
    assert same(weights_of(shop, 6), weights_of(measured[0], 6))


AT_THE_SECOND_EVALUATION = """
from falcon_trainer.train.report import Reporter
import signal
rounds = []
def alive(self, original=Reporter.alive):
    original(self)
    rounds.append(json.loads((RUNTIME / f"beat-{rank}.json").read_text()))
    assert len(rounds) <= 4, "the stop came with the fourth"  # three rounds of two ranks for five rows
    if rank == 1 and len(rounds) == 4:
        os.kill(os.getpid(), signal.SIGTERM)
Reporter.alive = alive
"""


def test_a_stop_during_an_evaluation_ends_it_at_once_and_it_is_made_up_for(
    measured: Finished, tmp_path: Path, gang: Ranks
) -> None:
    shop = copied(measured[0], tmp_path)
    for step, done in ((4, [2]), (6, [2, 4])):  # in the middle of the run, then after its last step
        ended = train(shop, settings(), gang, AT_THE_SECOND_EVALUATION)
        assert (ended["code"], ended["step"]) == (143, step)
        assert list(lines(shop, "evaluationLoss")) == done
        assert found(shop.layout)[0].step == step
        assert found(shop.layout)[0].evaluation_loss is None
    made_up, stopped = (each.path for each in found(shop.layout) if each.step == 4)
    for rank in (0, 1):
        states = [torch.load(path / f"rng_state_{rank}.pth", weights_only=False) for path in (made_up, stopped)]
        assert torch.equal(states[0]["cpu"], states[1]["cpu"])
    result = train(shop, settings(), gang)["result"]
    assert_equal_but_for_its_place((shop, result), measured)
    for field in ("loss", "evaluationLoss"):
        assert lines(shop, field) == lines(measured[0], field)


# Losses that are told to the decisions in place of what was measured.
SCRIPTED = """
from falcon_trainer.train.evaluation import Measuring
LOSSES = {2: 5.0, 4: 4.0, 6: 4.5, 8: 4.6}
Measuring.take = lambda self, step, loss, original=Measuring.take: original(self, step, LOSSES[step])
"""
FORBID_LOADING = "import falcon_trainer.model.load as load; load.load_partitioned = None"
FAIL_TO_PUBLISH = """
from falcon_trainer.outcome import ExitCode
import falcon_trainer.train.adapter as adapter
def save_adapter(*arguments):
    raise StageError(ExitCode.CANNOT_WRITE, "DiskFull", "no space left")
adapter.save_adapter = save_adapter
"""
NOTE_WHO_IS_ASKED = """
from falcon_trainer.train.answering import Questions
import deepspeed, torch
def ask(self, moment, model, step):
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with deepspeed.zero.GatheredParameters(list(trained.values())):
        whole = {f"{name}.fp32": parameter.detach().clone() for name, parameter in trained.items()}
        torch.save((step, whole), RUNTIME / f"{moment}-{rank}.pt")
Questions.ask = ask
"""
FALL_AT_STEP_7 = """
from falcon_trainer.outcome import ExitCode
from falcon_trainer.train.report import Reporter
def stepped(self, step, *figures, original=Reporter.stepped):
    if step == 7:
        raise StageError(ExitCode.INTERNAL, "Fell", "as a pod would")
    original(self, step, *figures)
Reporter.stepped = stepped
"""
STOPPING = settings(
    maxSteps=20, checkpoint={"everySteps": 3, "keep": 1}, earlyStopping={"patience": 2, "minDelta": "0.1"}
)


@pytest.fixture(scope="module")
def stopped(measured: Finished, tmp_path_factory: pytest.TempPathFactory, gang: Ranks) -> Finished:
    """A run that early stopping ended at step 8 and that could not publish; then a second attempt."""
    shop = prepared(tmp_path_factory.mktemp("stopped"), STOPPING)
    assert train(shop, STOPPING, gang, SCRIPTED + NOTE_WHO_IS_ASKED + FAIL_TO_PUBLISH)["reason"] == "DiskFull"
    return shop, train(shop, STOPPING, gang, FORBID_LOADING)["result"]


def test_early_stopping_ends_the_run_as_a_success_with_the_best_adapter(stopped: Finished) -> None:
    shop, result = stopped
    told = {name: result[name] for name in ("step", "bestStep", "adapterStep", "evaluationLoss", "stoppedEarly")}
    assert told == {"step": 8, "bestStep": 4, "adapterStep": 4, "evaluationLoss": "4", "stoppedEarly": True}
    assert list(lines(shop, "loss")) == list(range(1, 9))
    best = {saved_name(name.removesuffix(".fp32")): tensor for name, tensor in master_weights(shop, 4).items()}
    assert same(published(shop, result), best)
    card = (shop.layout.workspace / result["adapter"]["path"] / "README.md").read_text()
    assert "trained for 4 steps (of 8) to a loss of 4 on validation records" in card


def test_the_samples_after_training_are_asked_of_the_adapter_that_is_kept(stopped: Finished) -> None:
    for rank in (0, 1):
        step, weights = torch.load(stopped[0].root / "runtime" / f"after-{rank}.pt")
        assert step == 4
        assert same(weights, master_weights(stopped[0], 4))


def test_the_best_checkpoint_stays_beside_the_newest(stopped: Finished) -> None:
    assert steps_kept(stopped[0]) == [8, 4]


def test_best_and_patience_go_on_after_a_restart(stopped: Finished, tmp_path: Path, gang: Ranks) -> None:
    shop = copied(stopped[0], tmp_path)
    assert train(shop, STOPPING, gang, SCRIPTED + FALL_AT_STEP_7)["reason"] == "Fell"
    assert steps_kept(shop) == [6, 4]
    assert_equal_but_for_its_place((shop, train(shop, STOPPING, gang, SCRIPTED)["result"]), stopped)


def test_a_validation_loss_that_is_no_number_ends_the_run(measured: Finished, tmp_path: Path, gang: Ranks) -> None:
    shop = copied(measured[0], tmp_path)
    poison = """
from falcon_trainer.train.loop import FalconTrainer
FalconTrainer._summed_loss = lambda self, batch: float("inf")
"""
    ended = train(shop, settings(), gang, poison)
    assert (ended["reason"], ended["step"]) == ("LossNotFinite", 2)
    assert "The validation loss at step 2 is inf" in ended["message"]


@pytest.fixture(scope="module")
def warm(measured: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, Heads]:
    """A run that starts from the adapter of the measured one and hardly moves."""
    heads = settings(maxSteps=1, learningRate="1e-12")
    heads["lora"]["initialAdapter"] = "pvc://data/earlier"
    shop = Workshop(tmp_path_factory.mktemp("warm"))
    origin, result = measured
    shutil.copytree(origin.layout.workspace / result["adapter"]["path"], shop.sources / "data" / "earlier")
    return prepared(shop.root, heads), heads


@pytest.mark.parametrize("ranks", [1, 3])
def test_training_from_an_adapter_begins_at_its_loss_on_any_number_of_ranks(
    measured: Finished, warm: tuple[Workshop, Heads], tmp_path: Path, gang: Ranks, ranks: int
) -> None:
    shop = copied(warm[0], tmp_path)
    train(shop, warm[1], gang, ranks=ranks)
    assert lines(shop, "evaluationLoss")[1] == pytest.approx(lines(measured[0], "evaluationLoss")[6], abs=1e-6)
    # Adam had begun anew: its first step moves every weight by the learning rate.
    assert float(next(t for n, t in weights_of(shop, 1).items() if n.endswith("exp_avg")).abs().max()) > 0
