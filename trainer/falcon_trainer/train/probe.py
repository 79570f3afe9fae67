"""Looks for slow ranks: each times a small fixed computation on its own device, and rank 0 says whose takes too long.

Nothing of the training is touched: no random number is drawn, and only two numbers a rank are exchanged, on the CPU.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from falcon_trainer.train.report import Reporter
from falcon_trainer.train.straggler import STEPS_APART, Streaks, notice, remark, steps_until_next
from falcon_trainer.train.zero import control_group

Probe = Callable[[], float]


class MatrixProbe:
    """Seconds that a fixed number of matrix products takes on this rank's device."""

    def __init__(self, *, gpu: bool) -> None:
        """On a GPU (not run on one) matrices large enough to keep it busy, and many, so that launching is hidden. On a
        CPU more milliseconds than the kernel's scheduler gives at once, so that other work on the core is seen as well.
        """
        size, self._products = (2048, 64) if gpu else (256, 12)
        kind, device = (torch.bfloat16, "cuda") if gpu else (torch.float32, "cpu")
        self._gpu = gpu
        self._factor = torch.full((size, size), 1.0 / size, dtype=kind, device=device)
        self._product = torch.empty_like(self._factor)

    def __call__(self) -> float:
        self._wait()
        begun = time.perf_counter()
        for _ in range(self._products):
            torch.mm(self._factor, self._factor, out=self._product)
        self._wait()
        return time.perf_counter() - begun

    def _wait(self) -> None:
        if self._gpu:
            torch.cuda.synchronize()


class SlowRanks(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Looks for slow ranks about every half minute. One on each rank; all look after the same steps."""

    def __init__(self, reporter: Reporter, probe: Probe) -> None:
        self._reporter, self._probe, self._streaks = reporter, probe, Streaks()
        self._told: set[int] = set()
        self._at = self._next = 0
        self._since = 0.0
        self._places: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        here = place(torch.distributed.get_rank(), os.environ)
        self._places = [""] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(self._places, here, group=control_group())
        self._at, self._since = state.global_step, time.monotonic()
        self._next = self._at + STEPS_APART

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self._next and len(self._places) > 1 and not control.should_training_stop:
            self._look(state.global_step)

    def _look(self, step: int) -> None:
        took = self._gathered(self._probe(), time.monotonic() - self._since)
        # By rank 0's clock, so that all ranks look again after the same step.
        self._next = step + steps_until_next(step - self._at, took[0][1])
        self._at, self._since = step, time.monotonic()
        if torch.distributed.get_rank() == 0:
            self._tell([seconds for seconds, _ in took])

    def _gathered(self, seconds: float, since: float) -> list[tuple[float, float]]:
        here = torch.tensor([seconds, since], dtype=torch.float64)
        ranks = [torch.empty_like(here) for _ in self._places]
        torch.distributed.all_gather(ranks, here, group=control_group())
        return [(float(rank[0]), float(rank[1])) for rank in ranks]

    def _tell(self, seconds: list[float]) -> None:
        slow = self._streaks.take(seconds)
        for each in slow:
            if each.rank not in self._told:
                self._told.add(each.rank)
                self._reporter.notice(notice(each, self._places))
        self._reporter.remark(remark(slow, self._places))


def place(rank: int, environment: Mapping[str, str]) -> str:
    """Where a rank runs, as a person would look for it: node and pod as far as the pod was told."""
    node, pod = environment.get("FALCON_NODE"), environment.get("POD_NAME")
    told = [f"node {node}"] if node else []
    told += [f"pod {pod}"] if pod else []
    return f"rank {rank}" + (f" ({', '.join(told)})" if told else "")
