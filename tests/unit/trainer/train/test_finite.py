"""What is said where a loss is no number."""

import math
from typing import Any

import numpy as np
import pytest

from falcon_trainer.data.packing import Plan
from falcon_trainer.outcome import RETRYABLE, ExitCode, StageError
from falcon_trainer.train.finite import Figures, batch_text, check_validation, of_skipped, of_training

ATTEMPT_MESSAGE = 1024
"""Characters that the record of an attempt keeps of a message."""


def figures(**changed: Any) -> Figures:
    return Figures(**({"step": 7, "loss": math.inf, "gradient_norm": 2.5, "learning_rate": 1e-4} | changed))


def plan(*rows: list[int]) -> Plan:
    return Plan(np.array([document for row in rows for document in row]), np.cumsum([0, *map(len, rows)]))


@pytest.mark.parametrize(
    ("loss", "norm", "finite"),
    [
        pytest.param(2.3, 0.5, True, id="numbers"),
        pytest.param(3e38, 3e38, True, id="large ones"),
        pytest.param(math.nan, 0.5, False, id="no loss"),
        pytest.param(-math.inf, 0.5, False, id="an infinite loss"),
        pytest.param(2.3, math.inf, False, id="an infinite gradient"),
        pytest.param(2.3, math.nan, False, id="no gradient"),
    ],
)
def test_training_goes_on_only_while_loss_and_gradient_are_numbers(loss: float, norm: float, finite: bool) -> None:
    assert figures(loss=loss, gradient_norm=norm).finite is finite


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        pytest.param({}, "The loss at step 7 is inf (gradient norm 2.5, learning rate 0.0001)", id="loss"),
        pytest.param(
            {"loss": 2.25, "gradient_norm": math.nan},
            "The gradient norm at step 7 is nan (loss 2.25, learning rate 0.0001)",
            id="gradient",
        ),
    ],
)
def test_the_sentence_names_step_loss_norm_and_learning_rate(changed: dict[str, float], sentence: str) -> None:
    assert str(figures(**changed)) == sentence


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        pytest.param([1], "row 1 (document 9)", id="one row of one document"),
        pytest.param([1, 0], "rows 1 (document 9), 0 (documents 4, 2)", id="in the order of the batch"),
        pytest.param([2], "row 2 (documents 10, 11, 12, 13 and 3 more)", id="many documents"),
        pytest.param([1, 1, 1, 0], "rows 1 (document 9), 1 (document 9), 1 (document 9) and 1 more", id="many rows"),
    ],
)
def test_a_batch_is_named_by_its_rows_and_their_documents(rows: list[int], text: str) -> None:
    assert batch_text(rows, plan([4, 2], [9], [10, 11, 12, 13, 14, 15, 16]), shown=3) == text


def test_a_training_that_diverged_waits_for_a_person() -> None:
    error = of_training(figures(), "rows 3, 4")
    assert (error.code, error.reason, error.step) == (ExitCode.CONFIGURATION, "LossNotFinite", 7)
    for told in ("is inf", "Lower training.learningRate", "checkpoints", "rows 3, 4", "skipBatch"):
        assert told in error.message
    assert not error.outcome().retryable


def test_a_batch_that_is_skipped_makes_another_attempt_worth_it() -> None:
    error = of_skipped(figures(), "rows 3, 4")
    assert error.code in RETRYABLE
    assert (error.reason, error.step, error.outcome().retryable) == ("LossNotFinite", 7, True)
    assert "without the step's global batch: rows 3, 4" in error.message


@pytest.mark.parametrize("told", [of_training, of_skipped])
def test_the_largest_batch_leaves_room_for_the_advice(told: Any) -> None:
    large = plan(*([10**9 + row * 1000 + number for number in range(400)] for row in range(600)))
    error = told(figures(step=10**8, loss=-math.inf, gradient_norm=math.inf), batch_text(range(600), large))
    assert len(f"pod {'p' * 63}: {error.message}") <= ATTEMPT_MESSAGE
    assert error.outcome(rank=511).encode() == error.outcome(rank=511)._text(error.message)


def test_a_validation_loss_is_checked_and_never_skipped() -> None:
    check_validation(7, 2.0)
    with pytest.raises(StageError, match="The validation loss at step 7 is nan: training diverged") as caught:
        check_validation(7, math.nan)
    assert (caught.value.code, caught.value.reason, caught.value.step) == (ExitCode.CONFIGURATION, "LossNotFinite", 7)
