"""The Trainer, with our own checkpoint in place of DeepSpeed's, and the callback that reports and stops."""

import math
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback

from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train.checkpoint import CheckpointWriter, read_trained
from falcon_trainer.train.partitions import gather, restore
from falcon_trainer.train.report import Reporter
from falcon_trainer.train.zero import control_group


class FalconTrainer(Trainer):  # type: ignore[misc,unused-ignore]
    """HF's Trainer whose checkpoints hold only what is trained and fit any world size."""

    def __init__(self, *, writer: CheckpointWriter | None, reporter: Reporter, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)  # the reporter prints
        self._writer, self._reporter = writer, reporter

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        self._reporter.saving()
        tensors, adam_step = gather(self.deepspeed)
        random_states = _gathered(_random_state())
        if self._writer:
            state = {
                "adamStep": adam_step,
                "learningRates": [group["lr"] for group in self.deepspeed.optimizer.optimizer.param_groups],
                "scheduler": self.lr_scheduler.state_dict(),
            }
            self._writer.save(step, tensors, state, self.state, random_states)
        torch.distributed.barrier(group=control_group())
        self._reporter.saved(step)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        # None: the checkpoint is ours, DeepSpeed would look for its own in it.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if resume_from_checkpoint:
            tensors, state = read_trained(Path(resume_from_checkpoint))
            restore(self.deepspeed, tensors, state["adamStep"], state["learningRates"])
            self.lr_scheduler.load_state_dict(state["scheduler"])
        return prepared


class Watch(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Reports each step, stops on a loss that is no number, and on SIGTERM after a common save."""

    def __init__(self, reporter: Reporter, seed: int) -> None:
        self._reporter, self._seed = reporter, seed
        self._asked = False
        self.stopped = False

    def install(self) -> None:
        """From here on SIGTERM means: save at the end of this step, then end."""
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Every rank its own dropout masks. A resumed run loads its random states after this.
        torch.manual_seed(self._seed + torch.distributed.get_rank())
        state.save_steps = args.save_steps  # a resumed state brings the interval that it was saved with
        self._reporter.started(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # All ranks must agree on the step: one that saved alone would wait for the others in a collective.
        asked = torch.tensor(int(self._asked))
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX, group=control_group())
        if asked.item():
            self.stopped = True
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step, loss, norm = state.global_step, logs["loss"], float(logs.get("grad_norm") or 0.0)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise StageError(
                ExitCode.CONFIGURATION,
                "LossNotFinite",
                f"The loss at step {step} is {loss} (gradient norm {norm}): training diverged. Lower "
                "training.learningRate or add warmupSteps; the checkpoints before this step are kept.",
                step=step,
            )
        self._reporter.stepped(step, loss, logs["learning_rate"], norm)


def _random_state() -> dict[str, Any]:
    """Random states as the Trainer's own loader of `rng_state_*.pth` expects them."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():  # not run on a GPU
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _gathered(value: Any) -> list[Any]:
    """Every rank's value, on rank 0."""
    ranks = [None] * torch.distributed.get_world_size() if torch.distributed.get_rank() == 0 else None
    torch.distributed.gather_object(value, ranks, dst=0, group=control_group())
    return ranks or []
