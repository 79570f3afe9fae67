"""The Trainer, with our own checkpoint and evaluation in place of the stock ones, and the callback that reports."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback

from falcon_trainer.model.lora import read_adapter
from falcon_trainer.train.answering import Questions
from falcon_trainer.train.checkpoint import Checkpoint, read_trained, read_weights
from falcon_trainer.train.divergence import LossCheck
from falcon_trainer.train.evaluation import Batch, Measuring
from falcon_trainer.train.finite import Figures, check_validation
from falcon_trainer.train.partitions import MASTER, gather, load_weights, restore
from falcon_trainer.train.report import Reporter
from falcon_trainer.train.saving import Saving
from falcon_trainer.train.standing import Standing
from falcon_trainer.train.stop import StopRequest
from falcon_trainer.train.workers import leave_group
from falcon_trainer.train.writer import Snapshot
from falcon_trainer.train.zero import control_group


class FalconTrainer(Trainer):  # type: ignore[misc,unused-ignore]
    """HF's Trainer whose checkpoints hold only what is trained and fit any world size."""

    control: Any

    def __init__(
        self,
        *,
        saving: Saving,
        reporter: Reporter,
        measuring: Measuring | None,
        initial_adapter: Path | None,
        **arguments: Any,
    ) -> None:
        """`initial_adapter` is a file of PEFT's, for a run that begins; a resumed one has its checkpoint."""
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)  # the reporter prints
        self._saving, self._reporter = saving, reporter
        self._measuring, self._initial_adapter = measuring, initial_adapter

    def get_train_dataloader(self) -> Any:
        loader = super().get_train_dataloader()
        loader.base_dataloader.worker_init_fn = leave_group  # accelerate's loader holds torch's
        return loader

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Measures the model on the validation rows, and asks for what follows from it: a checkpoint of the best, the
        end of a training that no longer pays. Raises StageError where the loss is no number.
        """
        assert self._measuring
        step, metrics = self.state.global_step, dict[str, float]()
        loss = self._measuring.loss(self.model_wrapped, self._summed_loss, self._reporter)
        if loss is None:  # a stop was asked for; the evaluation is made up for when the run goes on
            self.control.should_save = self.control.should_training_stop = True
        else:
            check_validation(step, loss)
            standing = self._measuring.take(step, loss)
            self._reporter.evaluated(step, loss, standing.best_step)
            self.control.should_save |= standing.is_best or standing.stopped_early
            self.control.should_training_stop |= standing.stopped_early
            metrics["eval_loss"] = loss
            self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def make_up(self, checkpoint: str) -> None:
        """The evaluation that a stop had cut short at the step of this checkpoint, if there is one."""
        if not self._measuring or not self._measuring.pending(self.state.global_step):
            return
        self._load_rng_state(checkpoint)  # as they are to be in a checkpoint that is written now
        if self.evaluate() and (self.control.should_save or self._measuring.over(self.state.global_step)):
            self._save_checkpoint(self.model_wrapped, None)
            self._saving.flush()  # before training forks its workers, or its end reads the checkpoint
        self.control.should_save = False

    def load(self, checkpoint: Checkpoint) -> None:
        """Puts the weights of a checkpoint into the model after training, where it has others. All ranks call."""
        if checkpoint.step != self.state.global_step:
            weights = read_weights(checkpoint.path, MASTER)
            load_weights(self.deepspeed, {name.removesuffix(f".{MASTER}"): weights[name] for name in weights})

    def _run_epoch(self, **arguments: Any) -> None:
        if checkpoint := arguments["resume_from_checkpoint"]:
            self.make_up(checkpoint)
            if self.control.should_training_stop:
                return
        super()._run_epoch(**arguments)

    def _summed_loss(self, batch: Batch) -> float:
        """Sum over the trained tokens of a micro-batch: the mean over one."""
        with torch.no_grad(), self.compute_loss_context_manager():
            return float(self.model_wrapped(**self._prepare_inputs(batch), num_items_in_batch=1)["loss"])

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._saving.save(self._snapshot)

    def _snapshot(self) -> Snapshot | None:
        """The state of the training, on rank 0. All ranks call."""
        step, measuring = self.state.global_step, self._measuring
        tensors, adam_step = gather(self.deepspeed)
        random_states = _gathered(_random_state())
        if not random_states:
            return None
        state = {
            "adamStep": adam_step,
            "learningRates": [group["lr"] for group in self.deepspeed.optimizer.optimizer.param_groups],
            "scheduler": self.lr_scheduler.state_dict(),
        }
        complete, loss = step == self.state.max_steps, None
        if measuring:
            state["evaluation"] = measuring.standing.to_wire()
            loss = measuring.standing.loss if measuring.standing.step == step else None
            complete = measuring.over(step)
        return Snapshot(
            step,
            tensors,
            json.dumps(state),
            _text_of(self.state),
            random_states,
            evaluation_loss=loss,
            complete=complete,
        )

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        # None: the checkpoint is ours, DeepSpeed would look for its own in it.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if resume_from_checkpoint:
            tensors, state = read_trained(Path(resume_from_checkpoint))
            restore(self.deepspeed, tensors, state["adamStep"], state["learningRates"])
            self.lr_scheduler.load_state_dict(state["scheduler"])
        elif self._initial_adapter:
            load_weights(self.deepspeed, read_adapter(self._initial_adapter))
        return prepared


class Watch(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Reports each step, asks for evaluations, ends on a loss that is no number, and on request after a common save."""

    def __init__(
        self,
        reporter: Reporter,
        seed: int,
        stop: StopRequest,
        saving: Saving,
        measuring: Measuring | None,
        questions: Questions,
        losses: LossCheck,
    ) -> None:
        self._reporter, self._seed, self._stop, self._measuring = reporter, seed, stop, measuring
        self._saving, self._questions, self._losses = saving, questions, losses

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._questions.ask("before", kwargs["model"], state.global_step)
        # Every rank its own dropout masks. A resumed run loads its random states after this.
        torch.manual_seed(self._seed + torch.distributed.get_rank())
        state.save_steps = args.save_steps  # a resumed state brings the interval that it was saved with
        known = self._measuring.standing if self._measuring else Standing()
        self._reporter.started(state.global_step, known.loss, known.best_step)
        self._saving.started()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        agreed = self._stop.agree(self._saving.wish())
        self._saving.heed(agreed)
        control.should_save |= agreed.save
        if agreed.stop:
            control.should_save = control.should_training_stop = True
        elif self._measuring and self._measuring.pending(state.global_step):
            control.should_evaluate = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step, loss, norm = state.global_step, logs["loss"], float(logs.get("grad_norm") or 0.0)
        rate = logs["learning_rate"]
        self._losses.take(Figures(step=step, loss=loss, gradient_norm=norm, learning_rate=rate))
        self._reporter.stepped(step, loss, rate, norm)


def _text_of(state: Any) -> str:
    """The Trainer's state as its own loader reads it. On one line: with indentation, Python writes JSON ten times more
    slowly, and the history grows with every step.
    """
    return json.dumps({field.name: getattr(state, field.name) for field in dataclasses.fields(state)})


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
