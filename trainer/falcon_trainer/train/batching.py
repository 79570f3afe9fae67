"""How rows become optimizer steps: pure arithmetic, checked before any GPU pod exists."""

from falcon_trainer.config import Training
from falcon_trainer.outcome import ExitCode, StageError

DEFAULT_EPOCHS = 3


def accumulation_steps(training: Training, world_size: int) -> int:
    """Micro-batches per rank and optimizer step.

    Raises StageError(CONFIGURATION) where the global batch does not divide by what the ranks take at once.
    """
    at_once = training.micro_batch_size * world_size
    if training.global_batch_size % at_once:
        below = training.global_batch_size // at_once * at_once
        fitting = " or ".join(str(size) for size in (below, below + at_once) if size)
        raise StageError(
            ExitCode.CONFIGURATION,
            "GlobalBatchDoesNotDivide",
            f"training.globalBatchSize {training.global_batch_size} is not a multiple of {at_once} (microBatchSize "
            f"{training.micro_batch_size} x {world_size} ranks): take {fitting}.",
        )
    return training.global_batch_size // at_once


def total_steps(training: Training, rows: int) -> int:
    """Optimizer steps of the run; the last global batch is filled up from one more pass over the rows."""
    if training.max_steps is not None:
        return training.max_steps
    return -(-(training.epochs or DEFAULT_EPOCHS) * rows // training.global_batch_size)
