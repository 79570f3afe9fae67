"""How a run stands on its validation records: the best so far, and whether it still pays to go on. Pure."""

from typing import Self

from falcon_trainer.config import EarlyStopping
from falcon_trainer.wire import Wire


def due(step: int, every_steps: int, last_step: int) -> bool:
    """Whether the model is measured after optimizer step `step` (1-based): every so often, and always at the end."""
    return step > 0 and (step % every_steps == 0 or step == last_step)


class Standing(Wire):
    """All that evaluations have shown so far; it lies in each checkpoint, so that a resumed run goes on from it."""

    step: int | None = None
    """Step of the newest evaluation."""
    loss: float | None = None
    """Its loss: the mean over the trained tokens of all validation rows."""
    best_step: int | None = None
    """Step of the lowest loss; of equal ones the first."""
    best_loss: float | None = None
    reference: float | None = None
    """Loss that an improvement is measured from: that of the newest evaluation that was one, or of the first."""
    waited: int = 0
    """Evaluations since then."""
    stopped_early: bool = False

    @property
    def is_best(self) -> bool:
        """Whether the newest evaluation is the best one."""
        return self.step is not None and self.step == self.best_step

    def after(self, step: int, loss: float, stopping: EarlyStopping | None) -> Self:
        """The standing after one more evaluation.

        What counts as an improvement is decided as in Keras and Lightning: measured from the last improvement, not from
        the lowest loss, so that many small steps down add up to one.
        """
        best = self.best_loss is None or loss < self.best_loss
        threshold = stopping.min_delta if stopping else 0.0
        improved = self.reference is None or loss < self.reference - threshold
        waited = 0 if improved else self.waited + 1
        return self.model_copy(
            update={
                "step": step,
                "loss": loss,
                "best_step": step if best else self.best_step,
                "best_loss": loss if best else self.best_loss,
                "reference": loss if improved else self.reference,
                "waited": waited,
                "stopped_early": stopping is not None and waited >= stopping.patience,
            }
        )
