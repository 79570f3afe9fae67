"""Attention in which the documents of a packed row never see each other.

transformers' own Falcon attention builds its mask without the positions, so packed documents read each other, and
broadcasts K and V to all heads. Here the borders come from the positions (each document's begin at 0), the work is
quadratic only within a document, and K and V keep one head per group. In a probe on a CPU 5 to 8 times faster than a
block-diagonal mask, with logits equal to each document's alone.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional
from transformers.models.falcon.modeling_falcon import FalconAttention

from falcon_trainer.model.checkpointing import Keeper
from falcon_trainer.outcome import ExitCode, StageError

STOCK_PARAMETERS = (
    "self",
    "hidden_states",
    "alibi",
    "attention_mask",
    "position_ids",
    "layer_past",
    "use_cache",
    "output_attentions",
    "position_embeddings",
    "kwargs",
)
"""Of FalconAttention.forward in transformers 5.23, which ours stands in for."""

FLASH_CAPABILITY = (8, 0)
"""Ampere; flash-attn refuses less (csrc/flash_attn/flash_api.cpp), and so does the copy in torch."""

NO_MASK = (1, 1, 1, 1)
"""Shape of the mask to pass to the model: a mask of four dimensions is handed on as it is, so none of size T x T is
ever built."""


@dataclass(frozen=True)
class Documents:
    """Borders of the documents in a flattened micro-batch of N tokens."""

    edges: list[int]
    """0, the end of the first document, …, N."""
    cumulative: torch.Tensor
    """The edges as int32 on the device of the positions, shape [documents + 1]."""
    longest: int


Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Documents], torch.Tensor]
"""(q [N, heads, d], k [N, kv heads, d], v [N, kv heads, d], documents) → [N, heads, d], causal in each document."""


class Borders:
    """Finds the documents once per micro-batch: all layers are given the same tensor of positions."""

    def __init__(self) -> None:
        self._last: tuple[torch.Tensor, Documents] | None = None

    def of(self, position_ids: torch.Tensor) -> Documents:
        """The documents of positions [rows, T]; a document begins wherever the position is 0."""
        if self._last is None or self._last[0] is not position_ids:
            starts = (position_ids.flatten() == 0).nonzero().flatten()
            edges = [*starts.tolist(), position_ids.numel()]
            cumulative = torch.tensor(edges, dtype=torch.int32, device=position_ids.device)
            longest = max(end - start for start, end in pairwise(edges))
            self._last = (position_ids, Documents(edges, cumulative, longest))
        return self._last[1]


class DocumentAttention(FalconAttention):  # type: ignore[misc,unused-ignore]
    """FalconAttention with the weights where they were and another forward, for training only (no cache)."""

    def __init__(self, config: Any, layer_idx: int, borders: Borders, kernel: Kernel, keeper: Keeper) -> None:
        super().__init__(config, layer_idx)
        self._borders, self._kernel, self.keeper = borders, kernel, keeper

    def forward(  # noqa: PLR0913,RUF100 - the signature is transformers'
        self,
        hidden_states: torch.Tensor,
        alibi: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        layer_past: Any = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """[rows, T, hidden] → [rows, T, hidden]. The mask is ignored: the borders say everything."""
        assert position_ids is not None
        assert position_embeddings is not None
        rows, length, _ = hidden_states.shape
        groups, dim = self.num_kv_heads, self.head_dim
        # Falcon's fused projection holds, per group, its query heads, one key and one value (modeling_falcon.py).
        fused = self.query_key_value(hidden_states).view(rows * length, groups, self.num_heads // groups + 2, dim)
        cos, sin = (part.expand(rows, -1, -1).reshape(-1, 1, 1, dim) for part in position_embeddings)
        # Each in memory of its own: a view would keep the whole projection alive until the backward pass.
        query = _rotate(fused[:, :, :-2], cos, sin).view(rows * length, self.num_heads, dim)
        key = _rotate(fused[:, :, -2], cos[:, 0], sin[:, 0])
        value = fused[:, :, -1].contiguous()
        documents = self._borders.of(position_ids)
        with self.keeper.attention():
            mixed = self._kernel(query, key, value, documents)
        return self.dense(mixed.reshape(rows, length, self.num_heads * dim)), None


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of the last dimension, halves convention."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def sdpa_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Documents) -> torch.Tensor:
    """torch's scaled_dot_product_attention, one call per document."""
    q, k, v = (part.transpose(0, 1)[None] for part in (query, key, value))  # [1, heads, N, d]
    mixed = [
        functional.scaled_dot_product_attention(
            q[:, :, start:end], k[:, :, start:end], v[:, :, start:end], is_causal=True, enable_gqa=True
        )
        for start, end in pairwise(documents.edges)
    ]
    return torch.cat(mixed, 2)[0].transpose(0, 1)


def flash_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Documents) -> torch.Tensor:
    """flash-attn's variable-length kernel: one call for all documents. Not run on a GPU.

    As flash-attn 2.8.3 wants it (read, `flash_attn_varlen_func` and `csrc/flash_attn/flash_api.cpp`): 16-bit elements,
    a dense last dimension, borders as int32 on the GPU, the longest document as int, K and V with a head per group.
    """
    from flash_attn import flash_attn_varlen_func

    q, k, v = (_half(part) for part in (query, key, value))
    cumulative, longest = documents.cumulative, documents.longest
    mixed: torch.Tensor = flash_attn_varlen_func(q, k, v, cumulative, cumulative, longest, longest, causal=True)
    return mixed.to(query.dtype)


def torch_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Documents) -> torch.Tensor:
    """torch's own variable-length flash attention (CUDA only). Not run on a GPU.

    As torch 2.13 wants it (read, `torch.nn.attention.varlen`): `window_size` (-1, 0) is its way to say causal, and
    `enable_gqa` allows K and V with a head per group; the rest as flash-attn.
    """
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (_half(part) for part in (query, key, value))
    cumulative, longest = documents.cumulative, documents.longest
    causal = (-1, 0)
    mixed = varlen_attn(q, k, v, cumulative, cumulative, longest, longest, window_size=causal, enable_gqa=True)
    assert isinstance(mixed, torch.Tensor)
    return mixed.to(query.dtype)


def _half(part: torch.Tensor) -> torch.Tensor:
    return part.to(torch.bfloat16) if part.dtype == torch.float32 else part


def choose_kernel(setting: str, *, gpu: bool) -> tuple[str, Kernel]:
    """The kernel for `training.attention`, with its name for the log.

    Raises StageError(CONFIGURATION) where flash attention is demanded and this pod's GPU has none.
    """
    capable = gpu and _capability() >= FLASH_CAPABILITY
    if setting == "sdpa" or (setting == "auto" and not capable):
        return "sdpa per document", sdpa_kernel
    if not capable:
        what = "is too old for it (Ampere or newer is needed)" if gpu else "is missing"
        raise StageError(
            ExitCode.CONFIGURATION,
            "FlashAttentionNeedsGpu",
            f"training.attention is flash-attention, but this pod's GPU {what}: set it to auto or sdpa, or give the "
            "gang GPUs that have it (gang.gpusPerNode, podTemplate.train.nodeSelector).",
        )
    try:
        import flash_attn  # noqa: F401
    except ImportError as error:  # not installed, or built for another torch
        return f"torch varlen (no flash-attn: {error})", torch_kernel
    return "flash-attn varlen", flash_kernel


def _capability() -> tuple[int, int]:
    """Compute capability of this rank's GPU. Not run on a GPU."""
    return torch.cuda.get_device_capability()


def check_stock() -> None:
    """Fails loudly where FalconAttention is not the one that DocumentAttention stands in for.

    Raises StageError(INTERNAL): another transformers, or a library that patched the class.
    """
    found = tuple(inspect.signature(FalconAttention.forward).parameters)
    module = FalconAttention.forward.__module__
    if found != STOCK_PARAMETERS or module != FalconAttention.__module__:
        raise StageError(
            ExitCode.INTERNAL,
            "UnknownAttention",
            f"transformers' FalconAttention.forward is not the known one (from {module}, parameters {found}): "
            "attention on packed rows cannot be trusted with it. Use the image's own transformers, unpatched.",
        )
