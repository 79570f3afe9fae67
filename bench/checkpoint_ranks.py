"""One of the two ranks of the checkpoint bench: a Falcon under ZeRO-3 that both sides save, in turns.

- stock: `Trainer._save_checkpoint` of transformers, with the setting of the original recipe that lets it save an
  adapter under ZeRO-3 (`stage3_gather_16bit_weights_on_model_save`). It gathers the weights of every module, and each
  rank writes its part of the optimizer.
- ours: `FalconTrainer._save_checkpoint` as the train stage calls it, written in the background with digests and fsync.

Both save the same engine after the same step. Bytes are counted in a save of their own, which is not timed.
"""

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainingArguments
from transformers.integrations.deepspeed import deepspeed_config as completed_config

from falcon_trainer.beats import Beats
from falcon_trainer.config import Lora, Training
from falcon_trainer.layout import RunLayout
from falcon_trainer.model.attention import sdpa_kernel
from falcon_trainer.model.load import load_partitioned
from falcon_trainer.model.lora import lora_config
from falcon_trainer.model.shapes import falcon_config
from falcon_trainer.train.background import BackgroundWriter
from falcon_trainer.train.collate import collate
from falcon_trainer.train.loop import FalconTrainer
from falcon_trainer.train.report import Reporter
from falcon_trainer.train.saving import Saving
from falcon_trainer.train.writer import CheckpointWriter
from falcon_trainer.train.zero import deepspeed_config, initialise

TOKENS = 8
"""Of the one row that is trained, so that Adam has moments to save."""


@dataclass
class Side:
    """What one side's saves took."""

    bytes: dict[str, int] = field(default_factory=dict)
    """Of all tensors of each kind of collective, as rank 0 sees them."""
    calls: dict[str, int] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)
    """Seconds until training may go on, on the rank that waits longest."""
    durable: list[float] = field(default_factory=list)
    """Seconds until the checkpoint is written; for stock, which does not fsync, the pause."""


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call,unused-ignore]
    """Counts the tensors of collectives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.bytes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            name = func._opname.strip("_").removesuffix("_base")
            self.bytes[name] += max(map(_bytes, args), default=0)
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0


class Bench:
    """The trained model and its two ways to be saved."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder = folder
        layout = RunLayout("bench", folder)
        reporter = Reporter(Beats("train", rank, folder / "runtime"), total_steps=1)
        writer = CheckpointWriter(layout, layout.incarnation(1, "bench"), "bench", keep=1)
        self._saving = Saving(reporter, None if rank else BackgroundWriter(writer))
        self._trainer = self._trained(reporter)

    def _trained(self, reporter: Reporter) -> FalconTrainer:
        settings = deepspeed_config(Training(), gpu=False, cpu_adam=False)
        settings["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
        arguments = TrainingArguments(
            output_dir=str(self._folder / "stock"),
            max_steps=1,
            per_device_train_batch_size=1,
            optim="adamw_torch",
            use_cpu=True,
            deepspeed=settings,
            remove_unused_columns=False,
            label_names=["labels"],
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        base = self._folder / "base"
        model, _ = load_partitioned(base, falcon_config(base), sdpa_kernel, completed_config(), torch.float32)
        model.name_or_path = str(base)
        rank = json.loads((self._folder / "bench.json").read_text())["rank"]
        row = {name: torch.arange(TOKENS).numpy() for name in ("input_ids", "labels", "position_ids")}
        trainer = FalconTrainer(
            saving=self._saving,
            reporter=reporter,
            measuring=None,
            initial_adapter=None,
            model=get_peft_model(model, lora_config(Lora(rank=rank), str(base))),
            args=arguments,
            train_dataset=[row] * 2,
            data_collator=collate,
        )
        trainer.train()
        return trainer

    @property
    def parameters(self) -> tuple[int, int]:
        """Of the base, and those that are trained."""
        known = list(self._trainer.deepspeed.module.parameters())
        trained = sum(parameter.ds_numel for parameter in known if parameter.requires_grad)
        return sum(parameter.ds_numel for parameter in known) - trained, trained

    def stock(self) -> None:
        Trainer._save_checkpoint(self._trainer, self._trainer.model_wrapped, None)

    def ours(self) -> None:
        self._trainer._save_checkpoint(self._trainer.model_wrapped, None)

    def after(self) -> float:
        """Waits until all is written and makes room for the next save; seconds of the waiting."""
        waited = timed(self._saving.flush)
        self._trainer.state.global_step += 1  # a name of its own for each checkpoint
        if torch.distributed.get_rank() == 0:
            shutil.rmtree(self._folder / "stock", ignore_errors=True)
        os.sync()  # what one side left to the kernel is not to be written in the other's time
        torch.distributed.barrier()
        return waited


def timed(action: Callable[[], None]) -> float:
    """Seconds, on the rank that takes longest. All ranks call."""
    torch.distributed.barrier()
    start = time.perf_counter()
    action()
    seconds = torch.tensor(time.perf_counter() - start, dtype=torch.float64)
    torch.distributed.all_reduce(seconds, torch.distributed.ReduceOp.MAX)
    return float(seconds)


def run(folder: Path, repeats: int) -> dict[str, Any]:
    """Saves in turns; the figures of both sides."""
    bench, sides = Bench(folder, torch.distributed.get_rank()), {"stock": Side(), "ours": Side()}
    for name, side in sides.items():
        with Traffic() as traffic:
            getattr(bench, name)()
        bench.after()
        side.bytes, side.calls = dict(traffic.bytes), dict(traffic.calls)
    for _ in range(repeats):
        for name, side in sides.items():
            pause = timed(getattr(bench, name))
            side.pauses.append(pause)
            side.durable.append(pause + bench.after())
    base, trained = bench.parameters
    return {"base": base, "trained": trained, "sides": {name: vars(side) for name, side in sides.items()}}


if __name__ == "__main__":
    initialise(gpu=False)
    figures = run(Path(sys.argv[1]), int(sys.argv[2]))
    if torch.distributed.get_rank() == 0:
        (Path(sys.argv[1]) / "figures.json").write_text(json.dumps(figures))
    sys.stdout.flush()
    os._exit(0)  # the destructors of the process group are no part of the bench
