"""Activation checkpointing: what a layer keeps between its forward and its backward pass.

`full` keeps a layer's input and runs the layer again before its backward pass. `selective` keeps beside the input what
is dear to compute again and needed: the outputs of the frozen matrices and of the attention kernel. Run again are layer
norms, rotary embedding, activation function and the matrices of rank r. Of Falcon's parallel layers the two outputs
that are only added to others (`dense`, `dense_4h_to_h`) are not kept either: no gradient depends on them.

Measured on a CPU (hidden 1,024, 16 heads, 2 K/V heads, 2,048 tokens in fp32, rank 64; memory of 6 layers):

|                                   | full |     selective |   none |
| kept after forward, MB per layer  |   11 |            64 |    123 |
| peak of both passes, MB           |  240 |           503 |    798 |   selective in 3 of 6 layers: 398
| time of both passes               |    1 |          0.77 |   0.67 |
| gathers of a matrix under ZeRO-3  |    3 |             2 |      2 |   per micro-batch

For Falcon-180B in bfloat16 it keeps 210 kB per token and layer (computed): 34 GB for 2,048 tokens and 80 layers, of
which `selectiveLayers` takes a part.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

Mode = Literal["full", "selective", "none"]

ATTENTION_OPERATORS = (
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "torch_attn::_varlen_attn",
    "flash_attn::_flash_attn_varlen_forward",
)
"""Forward operators of the kernels in attention.py. One that is missing here is computed again: slower, as right."""


@dataclass(frozen=True)
class _Pass:
    """One run of a layer inside a checkpointed region."""

    outputs: deque[torch.Tensor]
    attention: AbstractContextManager[Any]
    recomputing: bool


class Keeper:
    """What one layer keeps for its recomputation. Every forward pass has a store of its own."""

    def __init__(self) -> None:
        self._pass: _Pass | None = None

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For torch.utils.checkpoint's `context_fn`: around the forward pass, and around the recomputation."""
        outputs: deque[torch.Tensor] = deque()
        saving, recalling = create_selective_checkpoint_contexts(_attention_operators())  # type: ignore[no-untyped-call]
        return self._during(_Pass(outputs, saving, False)), self._during(_Pass(outputs, recalling, True))

    @property
    def recomputing(self) -> bool:
        """Whether the layer is being run again, with the outputs that were kept."""
        return self._pass is not None and self._pass.recomputing

    def put(self, output: torch.Tensor) -> None:
        """Keeps an output, if this is the forward pass of a layer that keeps any."""
        if self._pass:
            self._pass.outputs.append(output.detach())

    def take(self) -> torch.Tensor:
        """The next output, in the order in which they were kept."""
        assert self._pass
        return self._pass.outputs.popleft()

    def attention(self) -> AbstractContextManager[Any]:
        """Goes around the attention kernel and nothing else.

        torch recalls the n-th call of an operator. DeepSpeed's hooks call operators as well, and not the same ones in
        forward pass and recomputation: around a whole layer, calls would be taken for one another.
        """
        return self._pass.attention if self._pass else nullcontext()

    @contextmanager
    def _during(self, run: _Pass) -> Iterator[None]:
        self._pass = run
        try:
            yield
        finally:
            self._pass = None


def checkpoint_layer(layer: Any, keeper: Keeper | None) -> None:
    """Runs a GradientCheckpointingLayer of transformers again before its backward pass: whole, or what the keeper does
    not recall. Dropout draws the same numbers again.
    """
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=True)
    layer._gradient_checkpointing_func = partial(again, context_fn=keeper.contexts) if keeper else again
    layer.gradient_checkpointing = True


def _attention_operators() -> list[torch._ops.OpOverload]:
    """Those of ATTENTION_OPERATORS that exist: an extension's appear when it is imported."""
    named = [operator.split("::") for operator in ATTENTION_OPERATORS]
    packets = [getattr(getattr(torch.ops, space), name, None) for space, name in named]
    return [packet.default for packet in packets if packet is not None]
