"""The best so far, patience, and when a model is measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.config import EarlyStopping
from falcon_trainer.train.standing import Standing, due

Losses = list[float]


def after(losses: Losses, stopping: EarlyStopping | None = None) -> Standing:
    """The standing after evaluations at steps 10, 20, 30, …"""
    standing = Standing()
    for number, loss in enumerate(losses, start=1):
        standing = standing.after(number * 10, loss, stopping)
    return standing


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "stopped"),
    [
        pytest.param([3.0, 2.0, 1.0], 1, "0", False, id="a loss that falls never stops"),
        pytest.param([2.0, 2.0], 1, "0", True, id="an equal loss is no improvement"),
        pytest.param([2.0, 2.5, 2.4], 2, "0", True, id="two in a row, although the second is better than the first"),
        pytest.param([2.0, 2.5, 1.9, 2.5], 2, "0", False, id="an improvement begins the count anew"),
        pytest.param([2.0, 1.95, 1.94], 2, "0.1", True, id="falls that are too small do not count"),
        pytest.param([2.0, 1.95, 1.89], 2, "0.1", False, id="but small ones add up from the last that counted"),
        pytest.param([2.0], 1, "0", False, id="the first evaluation has nothing to improve on"),
    ],
)
def test_training_stops_after_so_many_evaluations_without_improvement(
    losses: Losses, patience: int, min_delta: str, stopped: bool
) -> None:
    stopping = EarlyStopping.model_validate({"patience": patience, "minDelta": min_delta})
    assert after(losses, stopping).stopped_early is stopped


def test_without_early_stopping_training_never_stops() -> None:
    assert not after([1.0, *[2.0] * 50]).stopped_early


def test_a_fall_that_is_too_small_to_count_is_still_the_best() -> None:
    standing = after([2.0, 1.95], EarlyStopping.model_validate({"minDelta": "0.1"}))
    assert (standing.best_step, standing.best_loss, standing.waited) == (20, 1.95, 1)


@given(st.lists(st.floats(0, 20), min_size=1), st.integers(1, 5), st.floats(0, 1))
def test_the_best_is_the_first_of_the_lowest(losses: Losses, patience: int, min_delta: float) -> None:
    stopping = EarlyStopping(patience=patience, min_delta=min_delta)
    standing = after(losses, stopping)
    assert standing.best_loss == min(losses)
    assert standing.best_step == (losses.index(min(losses)) + 1) * 10
    assert standing.is_best == (min(losses) not in losses[:-1] and losses[-1] == min(losses))


@given(st.lists(st.floats(0, 20)), st.lists(st.floats(0, 20)))
def test_a_restart_in_between_changes_nothing(before: Losses, afterwards: Losses) -> None:
    """What lies in a checkpoint as JSON reads back to the last bit."""
    stopping = EarlyStopping(min_delta=0.5)
    standing = Standing.model_validate_json(after(before, stopping).model_dump_json(by_alias=True, exclude_none=True))
    for number, loss in enumerate(afterwards, start=len(before) + 1):
        standing = standing.after(number * 10, loss, stopping)
    assert standing == after(before + afterwards, stopping)


@pytest.mark.parametrize(
    ("step", "measured"),
    [
        pytest.param(0, False, id="nothing is measured before the first step"),
        pytest.param(9, False, id="nor between"),
        pytest.param(20, True, id="after every tenth"),
        pytest.param(23, True, id="and after the last"),
    ],
)
def test_when_a_model_is_measured(step: int, measured: bool) -> None:
    assert due(step, every_steps=10, last_step=23) is measured
