"""The train stage: one rank of the gang, from the prepared data to the published adapter."""

import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer.artifacts import problem, read_manifest, remove_drafts, write_file
from falcon_trainer.beats import Beats
from falcon_trainer.config import Gang, RunConfig, Training
from falcon_trainer.data.contents import PROMPTS
from falcon_trainer.identity import claim
from falcon_trainer.layout import RunLayout
from falcon_trainer.model import warm_start
from falcon_trainer.model.source import model_folder, published_name
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.report.journal import conclude, state_of
from falcon_trainer.train import adapter
from falcon_trainer.train.batching import accumulation_steps, total_steps
from falcon_trainer.train.checkpoint import newest_valid, remove_stale_drafts, standing_at
from falcon_trainer.train.damage import Tell, teller
from falcon_trainer.train.finish import ending_at, ending_of, publish_adapter, result
from falcon_trainer.train.skipped import SkippedBatch, add_skipped, notices, read_skipped
from falcon_trainer.train.standing import Standing
from falcon_trainer.train.stop import StopRequest
from falcon_trainer.train.zero import cpu_adam_available, decided, deepspeed_config, initialise

log = logging.getLogger(__name__)

SCHEDULERS = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
MAX_GRADIENT_NORM = 1.0
NOTHING_MEASURED = Standing()


@dataclass(frozen=True)
class Start:
    """What rank 0 found on the volume and all ranks go by: none of them looks for itself."""

    identity: str
    incarnation: Path
    checkpoint: Path | None = None
    step: int = 0
    standing: Standing = NOTHING_MEASURED
    skipped: tuple[SkippedBatch, ...] = ()
    initial_adapter: Path | None = None
    finished: dict[str, JsonValue] | None = None


def train(config: RunConfig, beats: Beats, layout: RunLayout) -> dict[str, JsonValue]:
    """Trains the adapter, or finds it trained. Raises StageError."""
    import torch

    beats.update("start")
    gpu = torch.cuda.is_available()
    check_gpus(config.gang, torch.cuda.device_count() if gpu else 0)
    initialise(gpu=gpu)
    accumulation_steps(config.training, torch.distributed.get_world_size())
    start = decided(lambda: _start(config, layout, teller(beats)))
    beats.update("start")  # with what there was to tell of checkpoints
    if start.finished:
        if torch.distributed.get_rank() == 0:
            conclude(layout, state_of(start.finished))
        return start.finished
    return _Run(config, beats, layout, start, gpu=gpu).train()


def check_gpus(gang: Gang, visible: int) -> None:
    """Raises StageError where this pod asked for GPUs and torch sees too few: training would crawl along on the CPU and
    hold them. Worth another attempt, since it may be one node's driver.
    """
    if gang.gpus_per_node and visible < gang.processes:
        raise StageError(
            ExitCode.INTERNAL,
            "GpuNotUsable",
            f"The pod asked for {gang.gpus_per_node} GPUs for {gang.processes} ranks, but torch sees {visible}. Look "
            "at the node's driver and container toolkit, and whether the image's CUDA is newer than the driver; "
            "gang.gpusPerNode 0 trains on the CPU.",
        )


def _start(config: RunConfig, layout: RunLayout, tell: Tell) -> Start:
    identity = claim(config, layout)
    _check_prepared(layout, identity)
    attempt = int(os.environ.get("FALCON_ATTEMPT", "0"))
    remove_stale_drafts(layout, attempt, tell)
    remove_drafts(layout.adapter("adapter"))
    incarnation = layout.incarnation(attempt, os.environ.get("POD_UID", "local"))
    if found := adapter.finished(layout, identity):
        return Start(identity, incarnation, finished=result(layout, *found))
    checkpoint, skipped = newest_valid(layout, identity, tell), read_skipped(layout, identity)
    if checkpoint is None:
        stored = warm_start.stored(config, layout, identity)
        return Start(identity, incarnation, initial_adapter=stored, skipped=skipped)
    if checkpoint.complete:
        print(f"Training was over with {checkpoint.path}: its adapter is published.", flush=True)
        ending = ending_of(checkpoint, config, layout, identity, tell)
        return Start(identity, incarnation, finished=publish_adapter(ending, config, layout, identity))
    print(f"Going on from {checkpoint.path} at step {checkpoint.step}.", flush=True)
    standing = standing_at(checkpoint, layout, identity)
    return Start(identity, incarnation, checkpoint.path, checkpoint.step, standing, skipped=skipped)


def _check_prepared(layout: RunLayout, identity: str) -> None:
    manifest = read_manifest(layout.data)
    if manifest is None or manifest.facts.get("identity") != identity:
        raise StageError(
            ExitCode.NO_INPUT, "NotPrepared", f"{layout.data} holds no data set prepared for this run: run prepare."
        )
    if wrong := problem(layout.data, manifest, contents=False):
        raise StageError(ExitCode.DATA, "DataDamaged", f"The prepared data set is damaged: {wrong}. Run prepare again.")


class _Run:
    """One rank's training, once it is decided where it starts."""

    def __init__(self, config: RunConfig, beats: Beats, layout: RunLayout, start: Start, *, gpu: bool) -> None:
        import torch

        from falcon_trainer.data.store import PackedRows
        from falcon_trainer.train.order import RowOrder

        self._config, self._beats, self._layout, self._start, self._gpu = config, beats, layout, start, gpu
        self._rank, self._world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._packed = PackedRows(layout.data)
        left_out = [skipped.batch for skipped in start.skipped]
        self._order = RowOrder(len(self._packed), config.training.seed, config.training.global_batch_size, left_out)
        self._steps = total_steps(config.training, len(self._packed))
        self._model_folder = model_folder(config.model, layout.workspace)

    def train(self) -> dict[str, JsonValue]:
        reporter, stop = self._reporter(), StopRequest()
        stop.install()
        self._tell_skipped(reporter)
        measuring, questions = self._measuring(stop), self._questions()
        saving = self._saving(reporter)
        trainer = self._trainer(reporter, stop, measuring, questions, saving)
        checkpoint = str(self._start.checkpoint) if self._start.checkpoint else None
        with saving.finished():
            trainer.train(resume_from_checkpoint=checkpoint)
        if checkpoint and not stop.agreed:
            trainer.make_up(checkpoint)  # where nothing was left to train
        step = trainer.state.global_step
        over = measuring.over(step) if measuring else step == self._steps
        if stop.agreed and not over:
            raise StageError(ExitCode.STOPPED, "Stopped", f"Stopped on request; step {step} is saved.", step=step)
        told = (self._config, self._layout, self._start.identity)
        ending = decided(lambda: ending_at(step, *told, teller(self._beats)))
        trainer.load(ending.chosen)
        questions.ask("after", trainer.model, ending.chosen.step)
        self._beats.update("save")
        published = decided(lambda: publish_adapter(ending, *told))
        reporter.finished(state_of(published))
        return published

    def _tell_skipped(self, reporter: Any) -> None:
        if self._rank == 0:
            trained, file = self._order.batch(self._start.step), self._layout.relative(self._layout.skipped)
            for notice in notices(self._start.skipped, trained, file):
                reporter.notice(notice)

    def _saving(self, reporter: Any) -> Any:
        from falcon_trainer.train.background import BackgroundWriter
        from falcon_trainer.train.saving import Saving
        from falcon_trainer.train.writer import CheckpointWriter

        settings, start = self._config.training.checkpoint, self._start
        writer = CheckpointWriter(self._layout, start.incarnation, start.identity, settings.keep)
        background = None if self._rank else BackgroundWriter(writer, durable_step=start.step)
        return Saving(reporter, background, durable_step=start.step, every_minutes=settings.every_minutes)

    def _questions(self) -> Any:
        from falcon_trainer.train.answering import Questions

        return Questions(self._layout.data / PROMPTS, self._layout.report, self._model_folder, self._beats)

    def _measuring(self, stop: StopRequest) -> Any:
        from falcon_trainer.data.store import PackedRows
        from falcon_trainer.train.evaluation import Measuring

        if self._config.dataset.validation is None:
            return None
        rows = PackedRows(self._layout.validation)
        return Measuring(rows, self._config.training, self._steps, self._start.standing, stop)

    def _losses(self) -> Any:
        from falcon_trainer.train.divergence import LossCheck

        skip = partial(add_skipped, self._layout, self._start.identity)
        skips = self._config.training.on_non_finite == "skipBatch"
        return LossCheck(self._order, self._packed.plan, skip if skips else None)

    def _reporter(self) -> Any:
        from falcon_trainer.train.opening import open_journal
        from falcon_trainer.train.report import Reporter, Speed

        if self._rank:
            return Reporter(self._beats, self._steps)
        journal = open_journal(
            self._config,
            self._layout,
            self._model_folder,
            resumed_step=self._start.step,
            total_steps=self._steps,
            world_size=self._world,
            skipped_steps=[skipped.step for skipped in self._start.skipped],
            gpu=self._gpu,
        )
        speed = Speed(self._packed, self._order, self._config.training.global_batch_size, self._steps)
        return Reporter(self._beats, self._steps, speed, journal)

    def _trainer(self, reporter: Any, stop: StopRequest, measuring: Any, questions: Any, saving: Any) -> Any:
        """Arguments first: they make DeepSpeed's settings known, which loading under ZeRO-3 needs."""
        from transformers.integrations.deepspeed import deepspeed_config as completed_config

        from falcon_trainer.train.collate import collate
        from falcon_trainer.train.loop import FalconTrainer, Watch
        from falcon_trainer.train.order import TrainingRows
        from falcon_trainer.train.probe import MatrixProbe, SlowRanks

        self._beats.update("load")
        training = self._config.training
        arguments = self._arguments(training)
        model = self._model(completed_config())
        return FalconTrainer(
            saving=saving,
            reporter=reporter,
            measuring=measuring,
            initial_adapter=self._start.initial_adapter,
            model=model,
            args=arguments,
            train_dataset=TrainingRows(self._packed, self._order, self._steps * training.global_batch_size),
            data_collator=collate,
            callbacks=[
                Watch(reporter, training.seed, stop, saving, measuring, questions, self._losses()),
                SlowRanks(reporter, MatrixProbe(gpu=self._gpu)),
            ],
        )

    def _arguments(self, training: Training) -> Any:
        from transformers import TrainingArguments

        offloaded = training.deepspeed.offload_optimizer != "none"
        return TrainingArguments(
            output_dir=str(self._start.incarnation),
            max_steps=self._steps,
            per_device_train_batch_size=training.micro_batch_size,
            gradient_accumulation_steps=accumulation_steps(training, self._world),
            learning_rate=training.learning_rate,
            lr_scheduler_type=SCHEDULERS[training.scheduler],
            warmup_steps=training.warmup_steps,
            max_grad_norm=MAX_GRADIENT_NORM,
            optim="adamw_torch",
            seed=training.seed,
            bf16=self._gpu,
            use_cpu=not self._gpu,
            deepspeed=deepspeed_config(training, gpu=self._gpu, cpu_adam=offloaded and cpu_adam_available()),
            train_sampling_strategy="sequential",
            dataloader_num_workers=training.data_loader_workers,
            dataloader_pin_memory=self._gpu,
            remove_unused_columns=False,
            label_names=["labels"],
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_steps=training.checkpoint.every_steps,
            report_to=[],
            disable_tqdm=True,
        )

    def _model(self, completed: dict[str, Any]) -> Any:
        import torch
        from peft import get_peft_model

        from falcon_trainer.model.attention import check_stock, choose_kernel
        from falcon_trainer.model.load import load_partitioned
        from falcon_trainer.model.lora import lora_config
        from falcon_trainer.model.shapes import falcon_config

        check_stock()
        name, kernel = choose_kernel(self._config.training.attention, gpu=self._gpu)
        dtype = torch.bfloat16 if self._gpu else torch.float32
        model, report = load_partitioned(
            self._model_folder, falcon_config(self._model_folder), kernel, completed, dtype
        )
        write_file(self._layout.report / f"load-{self._rank}.json", report.model_dump_json(by_alias=True))
        log.info("rank %d loaded in %s s, attention: %s", self._rank, report.seconds, name)
        model.name_or_path = published_name(self._config.model, self._layout.workspace)
        torch.manual_seed(self._config.training.seed)  # the same adapter on every rank
        adapted = get_peft_model(model, lora_config(self._config.lora, model.name_or_path))
        training = self._config.training
        model.checkpoint_activations(training.activation_checkpointing, training.selective_layers)
        return adapted
