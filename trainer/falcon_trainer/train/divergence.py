"""What a rank does about a step whose loss or gradient is no number. All ranks see the same figures and act alike."""

from collections.abc import Callable

import torch

from falcon_trainer.data.packing import Plan
from falcon_trainer.train import finite
from falcon_trainer.train.finite import Figures
from falcon_trainer.train.order import RowOrder
from falcon_trainer.train.skipped import SkippedBatch
from falcon_trainer.train.zero import decided


class LossCheck:
    """Ends the attempt at the first step that went wrong, before anything of it can be saved."""

    def __init__(self, order: RowOrder, plan: Plan, skip: Callable[[SkippedBatch], None] | None) -> None:
        """`skip` writes down that the next attempt leaves a batch out; None where that is not wanted."""
        self._order, self._plan, self._skip = order, plan, skip

    def take(self, figures: Figures) -> None:
        """Raises StageError where the figures of a step are no numbers. All ranks call."""
        if figures.finite:
            return
        rows, skip = self._order.of_step(figures.step), self._skip
        if torch.distributed.get_rank() == 0:
            print(f"{figures}. Its global batch: {finite.batch_text(rows, self._plan, shown=len(rows))}", flush=True)
        batch = finite.batch_text(rows, self._plan)
        if skip is None:
            raise finite.of_training(figures, batch)
        # Before any rank leaves: its peers would be ended with it, rank 0 among them.
        decided(lambda: skip(SkippedBatch.of(figures, self._order.batch(figures.step), rows)))
        raise finite.of_skipped(figures, batch)
