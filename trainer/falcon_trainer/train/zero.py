"""DeepSpeed's settings: ZeRO-3, with or without parameters and optimizer in host memory, and its start.

The values of the original recipe (philschmid/deep-learning-pytorch-huggingface,
`training/configs/ds_falcon_180b_z3.json` and `..._z3_offload.json`), with three deliberate differences: the scheduler
is transformers' own (theirs silently replaced the one asked for), the 16-bit weights are not gathered on save (that
moved the whole base to save an adapter), and the optimizer is torch's where nothing is offloaded (no compiler needed).
"""

import logging
import os
import warnings
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

from falcon_trainer.config import Training
from falcon_trainer.outcome import StageError

T = TypeVar("T")

log = logging.getLogger(__name__)

ELEMENTS = 1_000_000_000
"""Recipe's sub_group_size, max_live_parameters and max_reuse_distance."""
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


def deepspeed_config(training: Training, *, gpu: bool, cpu_adam: bool) -> dict[str, Any]:
    """The configuration for transformers; `auto` values are filled from TrainingArguments and the model."""
    zero: dict[str, Any] = {
        "stage": training.deepspeed.stage,
        "overlap_comm": gpu,
        "contiguous_gradients": True,
        "sub_group_size": ELEMENTS,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": ELEMENTS,
        "stage3_max_reuse_distance": ELEMENTS,
        "stage3_gather_16bit_weights_on_model_save": False,
    }
    for key, device in (
        ("offload_param", training.deepspeed.offload_parameters),
        ("offload_optimizer", training.deepspeed.offload_optimizer),
    ):
        if device != "none":
            zero[key] = {"device": device, "pin_memory": gpu}
    return {
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": False},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": cpu_adam,
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "steps_per_print": ELEMENTS,
        "wall_clock_breakdown": False,
    }


def initialise(*, gpu: bool) -> None:
    """Joins the process group: NCCL on GPUs (not run on a GPU), gloo elsewhere.

    Before TrainingArguments are made: else accelerate and DeepSpeed each count another world size.
    """
    for name, alone in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(name, alone)
    os.environ.setdefault("MASTER_PORT", "29500")
    if not gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    # Of DeepSpeed's collectives, at every call.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*is deprecated. Please use `torch.distributed")
    # An empty list of operators: finding out which could be compiled costs seconds, and one that could be (shared
    # memory collectives for inference) would be compiled at start, for a minute, on every new pod.
    deepspeed.ops.__compatible_ops__ = {}
    _import_muon_uncompiled()
    deepspeed.init_distributed(dist_backend="nccl" if gpu else "gloo", timeout=COLLECTIVE_TIMEOUT)
    control_group()


def _import_muon_uncompiled() -> None:
    """Imports DeepSpeed's Muon without torch's compiler.

    The engine imports this optimizer, which we do not use, to ask whether ours is one; its decorators alone would
    import torch's whole compiler, half of the time that a rank takes to start (5 of 10 seconds of CPU, measured).
    """
    import torch

    compiler = torch.compile
    torch.compile = lambda function, **options: function  # type: ignore[assignment]
    try:
        import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    finally:
        torch.compile = compiler


def cpu_adam_available() -> bool:
    """Whether DeepSpeed's CPU Adam can be used on every rank: built into the image, or compiled now.

    Where it is not, torch's AdamW takes its place (the same numbers, several times slower). Called by all ranks.
    """
    import torch

    try:
        from deepspeed.ops.op_builder import CPUAdamBuilder

        CPUAdamBuilder().load(verbose=False)
        here = True
    except Exception as error:  # noqa: BLE001,RUF100 - a failed build raises whatever its tools raise
        log.warning("DeepSpeed's CPU Adam cannot be built (%s): torch's AdamW is used instead.", error)
        here = False
    everywhere = torch.tensor(int(here))
    torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN, group=control_group())
    return bool(everywhere.item())


_control: list[Any] = []


def control_group() -> Any:
    """A gloo group of all ranks for small host-side decisions, so that they never wait for a GPU. All ranks call."""
    import torch

    if not _control:
        _control.append(torch.distributed.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT))
    return _control[0]


def decided(decide: Callable[[], T]) -> T:
    """What rank 0 decides, on every rank; its StageError as well. All ranks call, `decide` runs on rank 0 alone."""
    import torch

    holder: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            holder[0] = decide()
        except StageError as error:
            holder[1] = (error.code, error.reason, error.message)
    torch.distributed.broadcast_object_list(holder, src=0, group=control_group(), device=torch.device("cpu"))
    if holder[1]:
        raise StageError(*holder[1])
    value: T = holder[0]
    return value
