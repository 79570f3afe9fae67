"""What is trained, out of ZeRO-3's partitions and back: full tensors, independent of world size and offload.

One gather per sub-group and kind moves only the adapter and its Adam moments (45 MB for a 3.7 M adapter); DeepSpeed's
own save gathers every module of the base to write the adapter. The attributes read here are those of DeepSpeed's
universal checkpoint loader, half private: deepspeed is pinned exactly, and tests hold the result bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

MASTER = "fp32"
KINDS = (MASTER, "exp_avg", "exp_avg_sq")
"""Master weight and Adam's two moments."""


def gather(engine: Any, kinds: tuple[str, ...] = KINDS) -> tuple[dict[str, torch.Tensor], int]:
    """Full fp32 tensors named `PARAMETER.KIND` on rank 0 (others get none), and Adam's step. All ranks call."""
    zero, full, step = engine.optimizer, {}, 0
    names = _names(engine)
    for parameters, flat, state in _sub_groups(zero):
        step = int(state.get("step", 0))
        for kind in kinds:
            ranks = _gather_flat(flat if kind == MASTER else state[kind])
            if ranks is None:
                continue
            start = 0
            for parameter in parameters:
                count = parameter.partition_numel()
                whole = torch.cat([rank[start : start + count] for rank in ranks])[: parameter.ds_numel]
                full[f"{names[parameter.ds_id]}.{kind}"] = whole.view(parameter.ds_shape).float().cpu().clone()
                start += count
    return full, step


def restore(engine: Any, full: Any, step: int, learning_rates: list[float]) -> None:
    """Puts full tensors back into a fresh engine of any world size. `full` maps names to tensors. All ranks call.

    Raises KeyError where a tensor is missing.
    """
    zero = engine.optimizer
    names = _names(engine)
    with _writable(zero) as sub_groups:
        for parameters, flat, state in sub_groups:
            for kind in KINDS[1:]:
                state.setdefault(kind, torch.zeros_like(flat, dtype=torch.float32))  # Adam makes them at its first step
            for kind in KINDS:
                tensors = [full[f"{names[parameter.ds_id]}.{kind}"] for parameter in parameters]
                _scatter(parameters, flat if kind == MASTER else state[kind], tensors)
            state["step"] = _adam_step(zero.optimizer, flat, step)
    for group, rate in zip(zero.optimizer.param_groups, learning_rates, strict=True):
        group["lr"] = rate  # the scheduler's own state does not reach the optimizer


def load_weights(engine: Any, full: Any) -> None:
    """Puts full weights, named by parameter, into a fresh engine; its optimizer begins anew. All ranks call.

    Into the fp32 masters, not into the model before it is wrapped: those would be made from weights already rounded.
    Raises KeyError where one is missing.
    """
    names = _names(engine)
    with _writable(engine.optimizer) as sub_groups:
        for parameters, flat, _ in sub_groups:
            _scatter(parameters, flat, [full[names[parameter.ds_id]] for parameter in parameters])


def _scatter(parameters: list[Any], flat: torch.Tensor, tensors: list[torch.Tensor]) -> None:
    """Fills this rank's partition of a sub-group from its parameters' full tensors."""
    rank, start = torch.distributed.get_rank(), 0
    for parameter, tensor in zip(parameters, tensors, strict=True):
        count = parameter.partition_numel()
        piece = tensor.flatten()[rank * count : (rank + 1) * count]
        target = flat.data.narrow(0, start, count)
        target.zero_()
        target[: piece.numel()].copy_(piece)  # may be short, or empty, on the last ranks
        start += count


def _adam_step(optimizer: Any, flat: torch.Tensor, step: int) -> Any:
    """Adam's step as its implementation keeps it: torch a tensor, DeepSpeed an int."""
    if not isinstance(optimizer, torch.optim.AdamW):
        return step
    beside = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
    return torch.tensor(float(step), dtype=torch.float32, device=flat.device if beside else "cpu")


def _names(engine: Any) -> dict[int, str]:
    return {parameter.ds_id: name for name, parameter in engine.module.named_parameters()}


def _sub_groups(zero: Any, *, write: bool = False) -> Iterator[tuple[list[Any], torch.Tensor, dict[str, Any]]]:
    """Per sub-group: its parameters, its flat fp32 partition on this rank, and Adam's state of it."""
    for index, parameters in enumerate(zero.fp16_groups):  # despite their name: the trained parameters
        swapped = zero._swappable_optimizer_subgroup(index)
        if swapped:
            zero._optimizer_states_and_gradient_swap_in(index)
        flat = zero.fp32_partitioned_groups_flat[index]
        yield parameters, flat, zero.optimizer.state[flat]
        if write:
            zero._reassign_or_swap_out_partitioned_parameters(index)  # master → the weights of the next forward pass
        if swapped and write:
            zero._optimizer_states_and_gradient_swap_out(index)
        elif swapped:
            zero._release_swap_buffers(index)


@contextmanager
def _writable(zero: Any) -> Iterator[Iterator[tuple[list[Any], torch.Tensor, dict[str, Any]]]]:
    """The sub-groups, to be written to: what was written becomes the weights of the next forward pass."""
    zero.checkpoint_event_prologue()  # partitions the parameters that ZeRO-3 keeps whole
    yield _sub_groups(zero, write=True)
    zero.checkpoint_event_epilogue()


def _gather_flat(partition: torch.Tensor) -> list[torch.Tensor] | None:
    """Every rank's partition, on rank 0."""
    import deepspeed.comm as dist
    from deepspeed.accelerator import get_accelerator

    # NCCL gathers from the GPU only, and an offloaded partition lies on the host.
    source = partition.detach().to(get_accelerator().current_device_name()).contiguous()
    ranks = [torch.empty_like(source) for _ in range(dist.get_world_size())] if dist.get_rank() == 0 else None
    dist.gather(source, ranks, dst=0)
    return ranks
