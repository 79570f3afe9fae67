"""A pod that asked for GPUs must not train on the CPU in silence."""

import pytest

from falcon_trainer.config import Gang
from falcon_trainer.outcome import StageError
from falcon_trainer.train.stage import check_gpus


@pytest.mark.parametrize(
    ("gang", "visible"),
    [
        pytest.param({"gpusPerNode": 0}, 0, id="a gang without GPUs trains on the CPU"),
        pytest.param({"gpusPerNode": 8}, 8, id="a GPU for each rank"),
        pytest.param({"gpusPerNode": 8, "processesPerNode": 4}, 4, id="fewer ranks than GPUs"),
    ],
)
def test_enough_gpus(gang: dict[str, int], visible: int) -> None:
    check_gpus(Gang.model_validate(gang), visible)


@pytest.mark.parametrize(("asked", "visible"), [(1, 0), (8, 7)])
def test_too_few_gpus_end_the_attempt_and_may_be_tried_again(asked: int, visible: int) -> None:
    with pytest.raises(StageError, match=f"asked for {asked} GPUs .* torch sees {visible}") as caught:
        check_gpus(Gang(gpus_per_node=asked), visible)
    assert caught.value.outcome().retryable
