"""What decides an adapter: settings of which any change makes another run."""

from typing import Any

import pytest

from falcon_trainer.config import RunConfig
from falcon_trainer.identity import identity_of

SPEC: dict[str, Any] = {
    "run": "r",
    "namespace": "n",
    "model": {"source": "pvc://models/base"},
    "dataset": {"sources": [{"uri": "pvc://data/records.jsonl"}]},
}


def identity(**heads: Any) -> object:
    return identity_of(RunConfig.model_validate(SPEC | heads))


def test_a_default_that_is_written_out_changes_nothing() -> None:
    """The API server writes defaults into a spec; a later release may know further ones."""
    written = RunConfig.model_validate(SPEC).to_wire()
    assert identity(**{head: written[head] for head in ("model", "dataset", "lora", "training")}) == identity()
    assert identity() == {
        "model": SPEC["model"],
        "dataset": SPEC["dataset"],
        "lora": {},
        "training": {},
    }


@pytest.mark.parametrize(
    ("heads", "same"),
    [
        pytest.param({"lora": {"rank": 8}}, False, id="another rank is another adapter"),
        pytest.param({"training": {"learningRate": "0.5"}}, False, id="so is another learning rate"),
        pytest.param({"training": {"checkpoint": {"everySteps": 7}}}, True, id="checkpoints may come more often"),
        pytest.param({"training": {"deepspeed": {"offloadOptimizer": "cpu"}}}, True, id="memory may be saved"),
        pytest.param({"training": {"onNonFinite": "skipBatch"}}, True, id="a bad batch may be left out from now on"),
        pytest.param({"gang": {"nodes": 3}}, True, id="the gang may grow"),
    ],
)
def test_which_changes_make_another_run(heads: dict[str, Any], same: bool) -> None:
    assert (identity(**heads) == identity()) is same


HELD_OUT = SPEC["dataset"] | {"validation": {"fraction": "0.1"}}


def measured(**training: Any) -> object:
    return identity(dataset=HELD_OUT, training=training)


@pytest.mark.parametrize(
    ("training", "same"),
    [
        pytest.param({"evaluation": {}}, True, id="evaluations as they are by default"),
        pytest.param({"evaluation": {"everySteps": 100, "adapter": "best"}}, True, id="the same, written out"),
        pytest.param({"evaluation": {"adapter": "last"}}, False, id="the last adapter in place of the best"),
        pytest.param({"evaluation": {"everySteps": 10}}, False, id="another choice of steps for the best"),
        pytest.param({"checkpoint": {"everySteps": 10}}, False, id="the same through the checkpoints"),
        pytest.param({"earlyStopping": {}}, False, id="an end that comes early"),
    ],
)
def test_which_settings_of_evaluation_make_another_run(training: dict[str, Any], same: bool) -> None:
    assert (measured(**training) == measured()) is same


@pytest.mark.parametrize(
    ("stopping", "same"),
    [
        pytest.param({}, True, id="the last adapter is the same however often it is measured"),
        pytest.param({"earlyStopping": {}}, False, id="but its step is not where evaluations end the training"),
    ],
)
def test_the_interval_counts_only_where_it_decides(stopping: dict[str, Any], same: bool) -> None:
    often, seldom = ({"evaluation": {"adapter": "last", "everySteps": steps}} | stopping for steps in (10, 20))
    assert (measured(**often) == measured(**seldom)) is same


def test_another_adapter_to_start_from_makes_another_run() -> None:
    assert identity(lora={"initialAdapter": "pvc://adapters/earlier"}) != identity()
