"""The attention kernels and the activation checkpointing of training, on a GPU. Not run on a GPU yet.

    python bench/gpu_check.py              (or: make gpu-check)
    python bench/gpu_check.py --rehearse   the same code on the CPU with small shapes: checks this script, not a GPU

First table: each kernel that this machine has, in bfloat16 on packed rows, against softmax attention written out in
fp32. Errors are largest absolute differences, told as multiples of the error of the same formula in bfloat16; as in
flash-attn's own tests a kernel passes with at most 2 for the output and 3 for the gradients. `apart` says that the
other documents of a row are the same, bit for bit, after one of them was changed.

Second table: one step of a model of that shape per mode of activation checkpointing: what backward gives, compared with
keeping everything, time and peak of memory.

The last line is one JSON object. The exit code is 0 only if everything passed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import MEGABYTE, print_table
from falcon_trainer.config import Lora
from falcon_trainer.model.attention import Documents, Kernel, flash_kernel, sdpa_kernel, torch_kernel
from falcon_trainer.model.checkpointing import Mode
from falcon_trainer.model.lora import lora_config
from falcon_trainer.model.packed import PackedFalcon

OUTPUT_LIMIT, GRADIENT_LIMIT, SLACK = 2.0, 3.0, 1e-5
"""tests/test_flash_attn.py of flash-attn 2.8.3."""
MODE_LIMIT = 0.02
"""Relative difference of gradients between modes: flash attention's backward pass adds in no fixed order."""
MODES: tuple[Mode, ...] = ("none", "selective", "full")
VOCABULARY = 1024


@dataclass(frozen=True)
class Shape:
    """Attention of a published Falcon, and how many of its layers fit the second table."""

    name: str
    heads: int
    groups: int
    layers: int
    dim: int = 64

    @property
    def flags(self) -> dict[str, Any]:
        one_head = self.groups == 1
        return {
            "hidden_size": self.heads * self.dim,
            "num_attention_heads": self.heads,
            "num_kv_heads": None if one_head else self.groups,
            "num_hidden_layers": self.layers,
            "new_decoder_architecture": not one_head,
            "multi_query": one_head,
        }


SHAPES = (
    Shape("falcon-7b", heads=71, groups=1, layers=4),
    Shape("falcon-40b", heads=128, groups=8, layers=2),
    Shape("falcon-180b", heads=232, groups=8, layers=1),
)
SMALL = (Shape("7b small", heads=5, groups=1, layers=2, dim=8), Shape("40b small", heads=8, groups=2, layers=2, dim=8))


def row_lengths(length: int) -> dict[str, list[int]]:
    """Documents of one row of `length` tokens."""
    forty = [1 + number % 3 * (length // 80) for number in range(39)]
    return {
        "1 document": [length],
        "2 documents": [length // 3, length - length // 3],
        "40 documents": [*forty, length - sum(forty)],
    }


def documents(lengths: Sequence[int], device: str) -> Documents:
    edges = [sum(lengths[:count]) for count in range(len(lengths) + 1)]
    return Documents(edges, torch.tensor(edges, dtype=torch.int32, device=device), max(lengths))


def kernels(device: str) -> dict[str, Kernel]:
    """Those that this machine has."""
    found: dict[str, Kernel] = {"sdpa per document": sdpa_kernel}
    if device == "cpu":
        return found
    found = {"torch varlen": torch_kernel, **found}
    try:
        import flash_attn
    except ImportError as error:
        print(f"flash-attn is not checked: {error}\n")
        return found
    return {f"flash-attn {flash_attn.__version__}": flash_kernel, **found}


def written_out(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, borders: Documents) -> torch.Tensor:
    """Causal softmax attention within each document, in the element type of its inputs; group by group, for memory."""
    per_group = query.shape[1] // key.shape[1]
    mixed = []
    for start, end in pairwise(borders.edges):
        hidden = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device).triu(1)
        heads = []
        for group in range(key.shape[1]):
            asked = query[start:end, group * per_group : (group + 1) * per_group].transpose(0, 1)
            scores = asked @ key[start:end, group].T / query.shape[2] ** 0.5
            heads.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value[start:end, group])
        mixed.append(torch.cat(heads).transpose(0, 1))
    return torch.cat(mixed)


Tensors = tuple[torch.Tensor, ...]
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Query [tokens, heads, dim], key and value [tokens, groups, dim]."""


def made(shape: Shape, tokens: int, device: str, dtype: torch.dtype) -> Inputs:
    torch.manual_seed(0)
    sizes = (shape.heads, shape.groups, shape.groups)
    query, key, value = (torch.randn(tokens, heads, shape.dim, device=device).to(dtype) for heads in sizes)
    return query, key, value


def run(kernel: Kernel, inputs: Inputs, outer: torch.Tensor, borders: Documents) -> Tensors:
    """The output and the gradients of query, key and value, in fp32."""
    query, key, value = (part.detach().clone().requires_grad_() for part in inputs)
    mixed = kernel(query, key, value, borders)
    gradients = torch.autograd.grad(mixed, (query, key, value), outer.to(mixed.dtype))
    return tuple(part.detach().float() for part in (mixed, *gradients))


def errors(found: Tensors, exact: Tensors) -> list[float]:
    """Largest differences; what is no number is infinitely wrong."""
    return [float((one - other).abs().nan_to_num(torch.inf).max()) for one, other in zip(found, exact, strict=True)]


def keeps_apart(kernel: Kernel, inputs: Inputs, borders: Documents) -> bool:
    """Whether changing the first document leaves the output of all others as it is."""
    end = borders.edges[1]
    query, key, value = (torch.cat((part[:end] + 1, part[end:])) for part in inputs)
    with torch.no_grad():
        return torch.equal(kernel(*inputs, borders)[end:], kernel(query, key, value, borders)[end:])


def seconds(action: Callable[[], Any], device: str) -> float:
    """Median time of five runs (of one in a rehearsal), after a first one that does not count."""
    taken = []
    for _ in range(2 if device == "cpu" else 6):
        _synchronise(device)
        started = time.perf_counter()
        action()
        _synchronise(device)
        taken.append(time.perf_counter() - started)
    return median(taken[1:])


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Checked:
    """One line of a table, and how far it stands from its limits (1: at the limit)."""

    cells: list[str]
    worst: float


def check_kernels(shape: Shape, name: str, lengths: list[int], device: str) -> Iterator[Checked]:
    """Every kernel on one row."""
    # A rehearsal is in fp32 throughout: the CPU's own kernel in bfloat16 is 4 times worse than the formula.
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    borders, inputs = documents(lengths, device), made(shape, sum(lengths), device, dtype)
    outer = torch.randn_like(inputs[0])
    query, key, value = (part.float() for part in inputs)
    exact = run(written_out, (query, key, value), outer, borders)
    yardstick = errors(run(written_out, inputs, outer, borders), exact)
    limits = [OUTPUT_LIMIT, *[GRADIENT_LIMIT] * 3]
    for kernel_name, kernel in kernels(device).items():
        both = partial(run, kernel, inputs, outer, borders)
        found = errors(both(), exact)
        allowed = [limit * error + SLACK for limit, error in zip(limits, yardstick, strict=True)]
        apart = len(lengths) == 1 or keeps_apart(kernel, inputs, borders)
        worst = max(error / limit for error, limit in zip(found, allowed, strict=True))
        ratios = [f"{error / (of + SLACK):.2f}" for error, of in zip(found, yardstick, strict=True)]
        took = f"{seconds(both, device) * 1e3:.2f}"
        cells = [shape.name, name, kernel_name, *ratios, "yes" if apart else "NO", took]
        yield Checked(cells, worst if apart else float("inf"))


def check_modes(shape: Shape, length: int, device: str) -> Iterator[Checked]:
    """A model of this shape in every mode of activation checkpointing, with the default adapter and its dropout."""
    from peft import get_peft_model
    from transformers import FalconConfig

    kernel = next(iter(kernels(device).values()))
    config = FalconConfig(vocab_size=VOCABULARY, parallel_attn=True, bias=False, alibi=False, **shape.flags)
    lengths = row_lengths(length)["40 documents"]
    tokens = torch.randint(0, VOCABULARY, (2, length), device=device)
    positions = torch.cat([torch.arange(part, device=device) for part in lengths]).repeat(2, 1)
    batch = {"input_ids": tokens, "position_ids": positions, "labels": tokens}
    expected: dict[str, torch.Tensor] = {}
    for mode in MODES:
        torch.manual_seed(0)
        with torch.device(device):
            falcon = PackedFalcon(config, kernel).to(torch.bfloat16)
            model = get_peft_model(falcon, lora_config(Lora(), "")).train()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        falcon.checkpoint_activations(mode)
        found, took, peak = step(model, batch, device)
        expected = expected or found
        relative = [(found[name] - kept).norm() / kept.norm().clamp(min=1e-12) for name, kept in expected.items()]
        difference = float(torch.stack(relative).nan_to_num(torch.inf).max())
        yield Checked(
            [shape.name, mode, f"{difference:.5f}", f"{took * 1e3:.1f}", f"{peak / MEGABYTE:.0f}"],
            difference / MODE_LIMIT,
        )
        del model, falcon


def step(model: Any, batch: dict[str, torch.Tensor], device: str) -> tuple[dict[str, torch.Tensor], float, int]:
    """Gradients, seconds, and peak of memory above what the model takes (0 on a CPU)."""

    def once() -> None:
        model.zero_grad()
        torch.manual_seed(1)
        model(**batch)["loss"].backward()

    before = 0 if device == "cpu" else torch.cuda.memory_allocated()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    once()
    peak = 0 if device == "cpu" else torch.cuda.max_memory_allocated() - before
    gradients = {n: p.grad.float().clone() for n, p in model.named_parameters() if p.requires_grad}
    return gradients, seconds(once, device), peak


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="bench/gpu_check.py", description=__doc__.split("\n")[0])
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with small shapes")
    rehearse = parser.parse_args(arguments).rehearse
    if not rehearse and not torch.cuda.is_available():
        print(
            "gpu-check needs an NVIDIA GPU, and torch sees none here. Run it on a machine that has one (Ampere or "
            "newer), with a torch built for CUDA; bench/gpu_check.py --rehearse only checks the script itself.",
            file=sys.stderr,
        )
        return 1
    device, shapes, length = ("cpu", SMALL, 160) if rehearse else ("cuda", SHAPES, 2048)
    card = "the CPU: a rehearsal" if rehearse else torch.cuda.get_device_name()
    torch.backends.cuda.matmul.allow_tf32 = False  # the reference is to be fp32
    print(f"On {card}, torch {torch.__version__}, rows of {length} tokens.\n")
    rows = row_lengths(length).items()
    checked = [line for shape in shapes for name, row in rows for line in check_kernels(shape, name, row, device)]
    header = ["shape", "row", "kernel", "output", "dq", "dk", "dv", "apart", "ms, both passes"]
    print_table(header, [line.cells for line in checked])
    modes = [line for shape in shapes for line in check_modes(shape, length, device)]
    print_table(["shape", "checkpointing", "gradient difference", "ms, step", "MB, peak"], [m.cells for m in modes])
    worst = max(line.worst for line in checked + modes)
    told = worst if isfinite(worst) else None
    print(json.dumps({"card": card, "torch": torch.__version__, "worst_over_limit": told, "passed": worst <= 1}))
    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
