"""Loads the base already partitioned: no rank ever holds a whole matrix, none is gathered or broadcast.

transformers' own way under ZeRO-3 reads every shard on every rank, or broadcasts it from rank 0. Here each rank copies
its slice of each tensor from the memory-mapped file into its partition: the file is read once per node, through the
page cache, and a rank's own memory grows by its partitions alone.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from falcon_trainer.model.attention import Kernel
from falcon_trainer.model.packed import PackedFalcon
from falcon_trainer.model.weights import Weights
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.wire import Wire


class LoadReport(Wire):
    """What loading cost one rank. Anonymous memory is memory of its own, without mapped files; -1 where unknown."""

    rank: int
    world_size: int
    base_bytes: int
    """Of the whole base in the element type that is trained with."""
    partition_bytes: int
    """Of this rank's slices."""
    largest_local: int
    """Elements of the largest base matrix as this rank sees it: 0 when every matrix is partitioned."""
    anonymous_before: int
    anonymous_peak: int
    anonymous_after: int
    seconds: float


def load_partitioned(
    folder: Path, config: Any, kernel: Kernel, deepspeed_config: dict[str, Any], dtype: torch.dtype
) -> tuple[PackedFalcon, LoadReport]:
    """The base, frozen, in `dtype`, every parameter partitioned over the ranks. Called by all ranks.

    Raises StageError(INTERNAL) where a matrix is left whole on this rank.
    """
    import deepspeed

    started = time.monotonic()
    with _MemorySampler() as memory:
        with torch.device("meta"):
            model = PackedFalcon(config, kernel)
        partitioner = deepspeed.zero.Init(config_dict_or_path=deepspeed_config, dtype=dtype)
        weights = Weights.of(folder)
        for name, holders in _parameters(model):
            partition = _partition(partitioner, holders.parameter.shape, dtype)
            _copy_slice(weights, name, partition)
            for module, attribute in holders.places:
                module._parameters[attribute] = partition
        _make_buffers(model, partitioner.local_device)
    report = LoadReport(
        rank=torch.distributed.get_rank(),
        world_size=torch.distributed.get_world_size(),
        base_bytes=sum(parameter.ds_numel * parameter.element_size() for parameter in model.parameters()),
        partition_bytes=sum(p.ds_tensor.numel() * p.element_size() for p in model.parameters()),
        largest_local=max(p.numel() for p in model.parameters() if len(p.ds_shape) > 1),
        anonymous_before=memory.before,
        anonymous_peak=memory.peak,
        anonymous_after=memory.after,
        seconds=round(time.monotonic() - started, 3),
    )
    if report.largest_local:
        raise StageError(
            ExitCode.INTERNAL,
            "BaseNotPartitioned",
            f"Rank {report.rank} holds a whole base matrix of {report.largest_local} elements after loading.",
        )
    return model, report


@dataclass(frozen=True)
class _Holders:
    """A parameter and every (module, attribute) it stands at: a tied head and embedding are one parameter."""

    parameter: nn.Parameter
    places: list[tuple[nn.Module, str]]


def _parameters(model: nn.Module) -> list[tuple[str, _Holders]]:
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((module, attribute))
    return [(name, _Holders(parameter, places[id(parameter)])) for name, parameter in model.named_parameters()]


def _partition(partitioner: Any, shape: torch.Size, dtype: torch.dtype) -> Any:
    """A partitioned parameter with nothing in it.

    The whole matrix exists for a moment as an address range: DeepSpeed copies this rank's slice out of it, so no other
    page of it is touched. What zero.Init does beside that, a broadcast of each matrix from rank 0, is left out.
    """
    whole = torch.empty(shape, dtype=dtype, device=partitioner.local_device)
    parameter: Any = nn.Parameter(whole, requires_grad=False)
    partitioner._convert_to_deepspeed_param(parameter)
    parameter.partition()
    return parameter


def _copy_slice(weights: Weights, name: str, parameter: Any) -> None:
    """Fills this rank's slice from the file; the last rank's padding is zero."""
    target = parameter.ds_tensor
    start = target.numel() * parameter.ds_zero_partition_rank
    source = weights.flat(name, start, start + target.numel())
    with torch.no_grad():
        target[: source.numel()].copy_(source)
        target[source.numel() :].zero_()


def _make_buffers(model: PackedFalcon, device: torch.device) -> None:
    """Rotary frequencies are computed, not stored: the meta device left them without values."""
    rotary = model.transformer.rotary_emb
    model.transformer.rotary_emb = type(rotary)(config=model.config).to(device)
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if left:
        raise StageError(ExitCode.INTERNAL, "UnknownBuffers", f"This Falcon has buffers without values: {left[:3]}.")


class _MemorySampler:
    """Anonymous memory of this process before, at most during, and after a block."""

    INTERVAL = 0.005

    def __enter__(self) -> "_MemorySampler":
        self.before = self.peak = self.after = anonymous_memory()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self.after = anonymous_memory()
        self.peak = max(self.peak, self.after)

    def _sample(self) -> None:
        while not self._stop.wait(self.INTERVAL):
            self.peak = max(self.peak, anonymous_memory())


def anonymous_memory() -> int:
    """Bytes of anonymous memory, from /proc; -1 where there is none (not Linux)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return -1
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024
