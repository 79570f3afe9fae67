"""The report of real ranks: what they answered, what a restart leaves of it, and that training does not notice it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from falcon_trainer.report.facts import read_facts
from falcon_trainer.report.samples import NEW_TOKENS, Sample, read_samples
from tests.unit.trainer.gang import Heads, adapter, prepared, train
from tests.unit.trainer.ranks import Ranks
from tests.unit.trainer.report.tensorboard import shown
from tests.unit.trainer.workshop import Workshop

pytestmark = pytest.mark.slow

SETTINGS: Heads = {
    "training": {"maxSteps": 6, "globalBatchSize": 4, "learningRate": "0.02", "checkpoint": {"everySteps": 3}},
    "lora": {"rank": 4, "alpha": 32, "dropout": "0.1"},
}


PATIENT = """
from falcon_trainer.train.answering import Patience
Patience.over = lambda self: False
"""
"""The machine of a test may be slow, and answers that were cut cannot be compared."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, gang: Ranks) -> Workshop:
    """A run with its whole report."""
    shop = prepared(tmp_path_factory.mktemp("reported"), SETTINGS)
    train(shop, SETTINGS, gang, PATIENT, report=True)
    return shop


def copy(origin: Workshop, root: Path) -> Workshop:
    """The run as it was after step 3, but for its report, which has seen step 6."""
    shutil.copytree(origin.root, root, dirs_exist_ok=True)
    shop = Workshop(root)
    shutil.rmtree(shop.layout.root / "adapter")
    shutil.rmtree(next(shop.layout.attempts.glob("*/checkpoint-6")))
    return shop


def lines(shop: Workshop) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (shop.layout.report / "metrics.jsonl").read_text().splitlines()]


def samples(shop: Workshop) -> list[Sample]:
    known = read_samples(shop.layout.report)
    assert known
    return known.samples


def test_every_step_has_its_figures(finished: Workshop) -> None:
    known = lines(finished)
    assert [line["step"] for line in known] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in known] == pytest.approx(
        [line["step"] * known[0]["epoch"] for line in known], abs=1e-3
    )
    for line in known:
        assert line["hfu"] > line["mfu"] > 0
        assert line["memoryBytes"] > 50 << 20
        assert line["tokens"] > 0
        assert line["seconds"] > 0


def test_the_answers_are_those_that_stock_generation_gives(finished: Workshop) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = next(finished.layout.root.glob("adapter/*"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(finished.sources / "models" / "base").eval()

    def answer(model: Any, prompt: str) -> str:
        asked = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        tokens = model.generate(**asked, max_new_tokens=NEW_TOKENS, do_sample=False)[0, asked["input_ids"].shape[1] :]
        text: str = tokenizer.decode(tokens, skip_special_tokens=True)
        return text if tokens[-1] == tokenizer.eos_token_id else f"{text} …"

    known = samples(finished)
    assert len(known) == 3
    assert [sample.before for sample in known] == [answer(base, sample.prompt) for sample in known]
    trained = PeftModel.from_pretrained(base, folder).eval()
    assert [sample.after for sample in known] == [answer(trained, sample.prompt) for sample in known]
    assert [sample.before for sample in known] != [sample.after for sample in known]


def test_page_and_curve_are_drawn(finished: Workshop) -> None:
    page = (finished.layout.report / "index.html").read_text()
    assert "6 of 6" in " ".join(page.split()).replace('6</dd><dd class="detail">', "6 ")
    assert (finished.layout.report / "loss.png").stat().st_size > 10_000


def test_a_training_without_samples_gives_the_same_adapter_bit_for_bit(
    finished: Workshop, tmp_path: Path, gang: Ranks
) -> None:
    shop = copy(finished, tmp_path)
    shutil.rmtree(shop.layout.attempts)
    train(shop, SETTINGS, gang)
    ours, theirs = adapter(shop), adapter(finished)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_resumed_run_goes_on_in_the_same_report(finished: Workshop, tmp_path: Path, gang: Ranks) -> None:
    shop = copy(finished, tmp_path)
    train(shop, SETTINGS, gang, report=True)
    assert [line["step"] for line in lines(shop)] == [1, 2, 3, 4, 5, 6]
    assert [step for tag, step, _ in shown(shop.layout.report) if tag == "train/loss"] == [1, 2, 3, 4, 5, 6]
    assert samples(shop) == samples(finished)
    known = read_facts(shop.layout.report)
    assert known
    assert [start.step for start in known.starts] == [0, 3]
    assert "restart" in (shop.layout.report / "index.html").read_text()


def test_what_goes_wrong_while_answering_or_drawing_does_not_end_the_training(
    finished: Workshop, tmp_path: Path, gang: Ranks
) -> None:
    shop = copy(finished, tmp_path)
    shutil.rmtree(shop.layout.attempts)
    shutil.rmtree(shop.layout.report)
    broken = """
from falcon_trainer.report.drawing import Drawing
from falcon_trainer.train import answering
def fail(*anything):
    raise RuntimeError("broken on purpose")
answering.complete = Drawing.finish = fail
"""
    result = train(shop, SETTINGS, gang, broken, report=True)["result"]
    assert result["step"] == 6
    assert [sample.after for sample in samples(shop)] == [None, None, None]
    log = (shop.root / "program.log").read_text()
    assert "The samples could not be answered" in log
    assert "The report could not be written (broken on purpose)" in log


def test_a_rank_that_fails_alone_ends_the_attempt_and_the_next_one_trains(
    finished: Workshop, tmp_path: Path, gang: Ranks
) -> None:
    """The others wait for it in a collective, so nothing but an end helps; it must come soon, and only so often."""
    shop = copy(finished, tmp_path)
    shutil.rmtree(shop.layout.attempts)
    shutil.rmtree(shop.layout.report)
    alone = """
from datetime import timedelta
from falcon_trainer.report.drawing import Drawing
from falcon_trainer.train import answering
Drawing.finish = lambda self: None
answering.AGREEMENT, answering.TRIES = timedelta(seconds=3), 1
def fail(*anything):
    raise MemoryError("on this rank alone")
if rank == 1 and ATTEMPT == 1:
    answering.complete = fail
"""
    with pytest.raises(AssertionError, match=r"exit codes \[1, 1\]"):
        train(shop, SETTINGS, gang, alone.replace("ATTEMPT", "1"), report=True)
    assert train(shop, SETTINGS, gang, alone.replace("ATTEMPT", "2"), report=True)["result"]["step"] == 6
    assert [sample.before for sample in samples(shop)] == [None, None, None]
