"""The train stage: one rank of the gang, from the prepared data to the published adapter."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer.artifacts import as_artifact, problem, read_manifest, remove_drafts, write_file
from falcon_trainer.beats import Beats
from falcon_trainer.config import Gang, RunConfig, Training
from falcon_trainer.identity import claim
from falcon_trainer.layout import RunLayout
from falcon_trainer.model.source import model_folder, published_name
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train import adapter
from falcon_trainer.train.batching import accumulation_steps, total_steps
from falcon_trainer.train.checkpoint import CheckpointWriter, newest_valid, remove_stale_drafts
from falcon_trainer.train.zero import cpu_adam_available, decided, deepspeed_config, initialise
from falcon_trainer.wire import decimal_text

log = logging.getLogger(__name__)

SCHEDULERS = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Start:
    """What rank 0 found on the volume and all ranks go by: none of them looks for itself."""

    identity: str
    incarnation: Path
    checkpoint: Path | None
    step: int
    finished: dict[str, JsonValue] | None


def train(config: RunConfig, beats: Beats, layout: RunLayout) -> dict[str, JsonValue]:
    """Trains the adapter, or finds it trained. Raises StageError."""
    import torch

    beats.update("start")
    gpu = torch.cuda.is_available()
    check_gpus(config.gang, torch.cuda.device_count() if gpu else 0)
    initialise(gpu=gpu)
    accumulation_steps(config.training, torch.distributed.get_world_size())
    start = decided(lambda: _start(config, layout))
    if start.finished:
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


def _start(config: RunConfig, layout: RunLayout) -> Start:
    identity = claim(config, layout)
    _check_prepared(layout, identity)
    attempt = int(os.environ.get("FALCON_ATTEMPT", "0"))
    remove_stale_drafts(layout, attempt)
    remove_drafts(layout.adapter("adapter"))
    incarnation = layout.incarnation(attempt, os.environ.get("POD_UID", "local"))
    if found := adapter.finished(layout, identity):
        return Start(identity, incarnation, None, 0, _result(layout, *found))
    checkpoint = newest_valid(layout, identity)
    if checkpoint is None:
        return Start(identity, incarnation, None, 0, None)
    print(f"Going on from {checkpoint.path} at step {checkpoint.step}.", flush=True)
    return Start(identity, incarnation, checkpoint.path, checkpoint.step, None)


def _check_prepared(layout: RunLayout, identity: str) -> None:
    manifest = read_manifest(layout.data)
    if manifest is None or manifest.facts.get("identity") != identity:
        raise StageError(
            ExitCode.NO_INPUT, "NotPrepared", f"{layout.data} holds no data set prepared for this run: run prepare."
        )
    if wrong := problem(layout.data, manifest, contents=False):
        raise StageError(ExitCode.DATA, "DataDamaged", f"The prepared data set is damaged: {wrong}. Run prepare again.")


def _result(layout: RunLayout, folder: Path, manifest: Any) -> dict[str, JsonValue]:
    artifact = as_artifact(folder, manifest, layout.workspace).to_wire()
    return {"adapter": artifact, **{key: value for key, value in manifest.facts.items() if key != "identity"}}


class _Run:
    """One rank's training, once it is decided where it starts."""

    def __init__(self, config: RunConfig, beats: Beats, layout: RunLayout, start: Start, *, gpu: bool) -> None:
        import torch

        from falcon_trainer.data.store import PackedRows
        from falcon_trainer.train.order import RowOrder

        self._config, self._beats, self._layout, self._start, self._gpu = config, beats, layout, start, gpu
        self._rank, self._world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._packed = PackedRows(layout.data)
        self._order = RowOrder(len(self._packed), config.training.seed)
        self._steps = total_steps(config.training, len(self._packed))
        self._model_folder = model_folder(config.model, layout.workspace)

    def train(self) -> dict[str, JsonValue]:
        from falcon_trainer.train.loop import Watch

        reporter = self._reporter()
        watch = Watch(reporter, self._config.training.seed)
        watch.install()
        trainer = self._trainer(reporter, watch)
        trainer.train(resume_from_checkpoint=str(self._start.checkpoint) if self._start.checkpoint else None)
        step = trainer.state.global_step
        if watch.stopped and step < self._steps:
            raise StageError(ExitCode.STOPPED, "Stopped", f"Stopped on request; step {step} is saved.", step=step)
        return self._publish(trainer, step)

    def _reporter(self) -> Any:
        from falcon_trainer.train.report import Metrics, Reporter, Speed

        if self._rank:
            return Reporter(self._beats, self._steps, None, None)
        speed = Speed(self._packed, self._order, self._config.training.global_batch_size, self._steps)
        return Reporter(self._beats, self._steps, speed, Metrics(self._layout.report, self._start.step))

    def _trainer(self, reporter: Any, watch: Any) -> Any:
        """Arguments first: they make DeepSpeed's settings known, which loading under ZeRO-3 needs."""
        from transformers.integrations.deepspeed import deepspeed_config as completed_config

        from falcon_trainer.train.collate import collate
        from falcon_trainer.train.loop import FalconTrainer
        from falcon_trainer.train.order import TrainingRows

        self._beats.update("load")
        training = self._config.training
        arguments = self._arguments(training)
        model = self._model(completed_config())
        writer = CheckpointWriter(self._layout, self._start.incarnation, self._start.identity, training.checkpoint.keep)
        return FalconTrainer(
            writer=None if self._rank else writer,
            reporter=reporter,
            model=model,
            args=arguments,
            train_dataset=TrainingRows(self._packed, self._order, self._steps * training.global_batch_size),
            data_collator=collate,
            callbacks=[watch],
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
            activation_checkpointing=training.activation_checkpointing == "full",
            activation_checkpointing_kwargs={"use_reentrant": False},
            train_sampling_strategy="sequential",
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
        return get_peft_model(model, lora_config(self._config.lora, model.name_or_path))

    def _publish(self, trainer: Any, step: int) -> dict[str, JsonValue]:
        from falcon_trainer.train.partitions import MASTER, gather

        self._beats.update("save")
        tensors, _ = gather(trainer.deepspeed, (MASTER,))
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        facts: dict[str, JsonValue] = {
            "identity": self._start.identity,
            "step": step,
            "loss": decimal_text(float(f"{losses[-1]:.6g}")),
        }
        base_name = published_name(self._config.model, self._layout.workspace)
        return decided(
            lambda: _result(
                self._layout,
                *adapter.save_adapter(self._layout, self._model_folder, base_name, self._config.lora, tensors, facts),
            )
        )
