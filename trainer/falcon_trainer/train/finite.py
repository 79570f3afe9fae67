"""What is said where a loss is no number: the figures of the step, and what its global batch was made of. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from falcon_trainer.data.packing import Plan
from falcon_trainer.outcome import ExitCode, StageError

REASON = "LossNotFinite"
SHOWN_ROWS, SHOWN_DOCUMENTS = 8, 4
"""Named in a message: a termination message has 4,000 bytes, the record of an attempt 1,024 characters."""
ADVICE = "Lower training.learningRate or add warmupSteps; the checkpoints before this step are kept"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One optimizer step, the same on every rank."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float

    @property
    def finite(self) -> bool:
        """Whether training may go on. An infinite norm counts as well: clipping by it makes weights of 0 x infinity."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)

    def __str__(self) -> str:
        step, norm = f"step {self.step}", f"gradient norm {self.gradient_norm:g}"
        rate = f"learning rate {self.learning_rate:g}"
        if math.isfinite(self.loss):
            return f"The gradient norm at {step} is {self.gradient_norm:g} (loss {self.loss:g}, {rate})"
        return f"The loss at {step} is {self.loss:g} ({norm}, {rate})"


def of_training(figures: Figures, batch: str) -> StageError:
    """The end of a training that a person must look at; `batch` says what the step was trained on."""
    text = f"{figures}: training diverged. {ADVICE}. The step's global batch: {batch}. Where that is to blame and not "
    text += "the learning rate, training.onNonFinite: skipBatch goes on without it."
    return StageError(ExitCode.CONFIGURATION, REASON, text, step=figures.step)


def of_skipped(figures: Figures, batch: str) -> StageError:
    """The end of an attempt whose successor leaves the batch out."""
    text = f"{figures}. The next attempt goes on from the newest checkpoint without the step's global batch: {batch}. "
    text += "Where it happens again and again, lower training.learningRate or add warmupSteps."
    return StageError(ExitCode.TRY_AGAIN, REASON, text, step=figures.step)


def check_validation(step: int, loss: float) -> None:
    """Raises StageError where the loss on the validation rows is no number: no batch of the training did that."""
    if not math.isfinite(loss):
        text = f"The validation loss at step {step} is {loss:g}: training diverged. {ADVICE}."
        raise StageError(ExitCode.CONFIGURATION, REASON, text, step=step)


def batch_text(rows: Sequence[int], plan: Plan, *, shown: int = SHOWN_ROWS) -> str:
    """The rows of a global batch with their documents (numbers in the order of the records), in bounded length: `rows
    17 (documents 3, 40), 4 (document 7) and 62 more`.
    """
    told = [f"{row} ({_documents(plan, row)})" for row in rows[:shown]]
    return ("row " if len(rows) == 1 else "rows ") + _listed(told, len(rows))


def _documents(plan: Plan, row: int) -> str:
    found = plan.row(row)
    told = [str(document) for document in found[:SHOWN_DOCUMENTS]]
    return ("document " if len(found) == 1 else "documents ") + _listed(told, len(found))


def _listed(told: Sequence[str], total: int) -> str:
    more = total - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")
