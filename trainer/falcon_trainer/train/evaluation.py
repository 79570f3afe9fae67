"""Measures the model on the validation rows, shared over the ranks.

Which rows stand together in a micro-batch depends on their lengths and microBatchSize alone, so every gang computes the
same sums, and the loss does not depend on its size. Under ZeRO-3 each forward pass is a collective: ranks for which no
micro-batch is left run one in which nothing counts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from falcon_trainer.config import EarlyStopping, Evaluation, Training
from falcon_trainer.data.store import IGNORED, PackedRows
from falcon_trainer.train.collate import collate
from falcon_trainer.train.report import Reporter
from falcon_trainer.train.standing import Standing, due
from falcon_trainer.train.stop import StopRequest
from falcon_trainer.train.zero import control_group

Batch = dict[str, torch.Tensor]


def micro_batches(lengths: NDArray[np.int64], rows_at_once: int) -> list[list[int]]:
    """The rows of each micro-batch, the longest first: rows that stand together hardly need padding, and what would not
    fit into memory fails at once.
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + rows_at_once].tolist() for start in range(0, len(order), rows_at_once)]


def share(batches: Sequence[list[int]], rank: int, world_size: int) -> list[list[int] | None]:
    """A rank's micro-batches, one for each round; None in the last round where there are none left."""
    rounds = -(-len(batches) // world_size)
    places = range(rank, rounds * world_size, world_size)
    return [batches[place] if place < len(batches) else None for place in places]


class Measuring:
    """The validation rows, when they are measured, and what that has shown so far. One on each rank, all alike."""

    def __init__(
        self, packed: PackedRows, training: Training, last_step: int, standing: Standing, stop: StopRequest
    ) -> None:
        settings = training.evaluation or Evaluation()
        self._every = settings.every_steps or training.checkpoint.every_steps
        self._stopping: EarlyStopping | None = training.early_stopping
        self._last, self._stop, self._packed = last_step, stop, packed
        self._batches = micro_batches(packed.lengths, training.micro_batch_size)
        self.standing = standing

    def pending(self, step: int) -> bool:
        """Whether the model of this step is to be measured and was not."""
        return due(step, self._every, self._last) and self.standing.step != step

    def over(self, step: int) -> bool:
        """Whether training is over after this step, its evaluation included."""
        return self.standing.stopped_early or (step == self._last and not self.pending(step))

    def take(self, step: int, loss: float) -> Standing:
        """Notes what was measured."""
        self.standing = self.standing.after(step, loss, self._stopping)
        return self.standing

    def loss(self, model: Any, summed_loss: Callable[[Batch], float], reporter: Reporter) -> float | None:
        """Mean loss over the trained tokens of all validation rows, the same number on every rank; None where a stop
        was asked for meanwhile. All ranks call; no random state is touched.

        `summed_loss` gives the sum over the trained tokens of a micro-batch.
        """
        mine = share(self._batches, torch.distributed.get_rank(), torch.distributed.get_world_size())
        total, tokens, training = 0.0, 0, model.training
        reporter.evaluating()
        model.eval()
        try:
            for rows in mine:
                if self._stop.agree().stop:
                    return None
                reporter.alive()
                batch = self._batch(rows)
                total += summed_loss(batch)
                tokens += int((batch["labels"][:, 1:] != IGNORED).sum())
        finally:
            model.train(training)
        return _mean_of_all(total, tokens)

    def _batch(self, rows: list[int] | None) -> Batch:
        batch = collate([self._packed.row(row) for row in rows or self._batches[-1]])
        if rows is None:
            batch["labels"].fill_(IGNORED)
        return batch


def _mean_of_all(total: float, tokens: int) -> float:
    """Gathered and not reduced: every rank adds up the same numbers in the same order, so all decide alike."""
    here = torch.tensor([total, tokens], dtype=torch.float64)
    ranks = [torch.empty_like(here) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(ranks, here, group=control_group())
    return float(sum(rank[0] for rank in ranks) / sum(rank[1] for rank in ranks))
