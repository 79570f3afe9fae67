"""The journal of one start of a training, with what rank 0 knows when it begins."""

import os
import platform
import time
from importlib.metadata import version
from math import prod
from pathlib import Path

from falcon_trainer.artifacts import read_manifest
from falcon_trainer.config import RunConfig
from falcon_trainer.layout import RunLayout
from falcon_trainer.model.attention import choose_kernel
from falcon_trainer.model.shapes import adapter_shapes, base_shapes, falcon_config
from falcon_trainer.model.source import published_name
from falcon_trainer.report.drawing import Drawing
from falcon_trainer.report.facts import Facts, Start, starts_so_far
from falcon_trainer.report.flops import Work, work
from falcon_trainer.report.journal import Journal
from falcon_trainer.report.peak import peak

LIBRARIES = ("falcon-trainer", "torch", "transformers", "peft", "deepspeed")


def open_journal(
    config: RunConfig,
    layout: RunLayout,
    model_folder: Path,
    *,
    resumed_step: int,
    total_steps: int,
    world_size: int,
    skipped_steps: list[int],
    gpu: bool,
) -> Journal:
    """Opens the report for the steps after `resumed_step`. Takes about a second, most of it for the measured peak."""

    def facts() -> Facts:
        base = base_shapes(falcon_config(model_folder))
        attempt = int(os.environ.get("FALCON_ATTEMPT", "0"))
        start = Start(attempt=attempt, step=resumed_step, time=time.time(), world_size=world_size)
        return Facts(
            run=config.run,
            base=published_name(config.model, layout.workspace),
            config=config.to_wire(),
            total_steps=total_steps,
            world_size=world_size,
            base_parameters=sum(map(prod, base.values())),
            trained_parameters=sum(map(prod, adapter_shapes(base, config.lora).values())),
            attention=choose_kernel(config.training.attention, gpu=gpu)[0],
            versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
            work=_work(config, layout, model_folder),
            peak=peak(gpu=gpu),
            starts=starts_so_far(layout.report, start),
            skipped=skipped_steps,
        )

    return Journal(layout.report, resumed_step, facts, Drawing(layout.root))


def _work(config: RunConfig, layout: RunLayout, model_folder: Path) -> Work:
    model, training = falcon_config(model_folder), config.training
    return work(
        base_shapes(model),
        layers=model.num_hidden_layers,
        checkpointing=training.activation_checkpointing,
        selective_layers=training.selective_layers,
        trained_share=_trained_share(layout),
    )


def _trained_share(layout: RunLayout) -> float:
    """Share of the data set's tokens that are trained; 1 where its figures do not say."""
    manifest = read_manifest(layout.data)
    figures = manifest.facts.get("figures") if manifest else None
    if not isinstance(figures, dict) or not figures.get("tokens"):
        return 1.0
    return int(str(figures["trainedTokens"])) / int(str(figures["tokens"]))
