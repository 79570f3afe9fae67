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
        pytest.param({"gang": {"nodes": 3}}, True, id="the gang may grow"),
    ],
)
def test_which_changes_make_another_run(heads: dict[str, Any], same: bool) -> None:
    assert (identity(**heads) == identity()) is same
