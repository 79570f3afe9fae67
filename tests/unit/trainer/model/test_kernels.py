"""Which attention kernel is taken, and how the GPU's are called. No kernel of a GPU runs here: bench/gpu_check.py."""

import sys
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from falcon_trainer.model import attention
from falcon_trainer.model.attention import Documents, choose_kernel, flash_kernel, sdpa_kernel, torch_kernel
from falcon_trainer.outcome import ExitCode, StageError

AMPERE, TURING = (8, 0), (7, 5)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what GPU the pod has, and whether flash-attn is installed."""

    def found(capability: tuple[int, int], *, flash_attn: bool) -> None:
        monkeypatch.setattr(attention, "_capability", lambda: capability)
        monkeypatch.setitem(sys.modules, "flash_attn", _flash_attn() if flash_attn else None)

    return found


def test_auto_takes_flash_attn_where_it_is_installed(gpu: Callable[..., None]) -> None:
    gpu(AMPERE, flash_attn=True)
    assert choose_kernel("auto", gpu=True) == ("flash-attn varlen", flash_kernel)


def test_auto_takes_torchs_own_flash_kernel_where_flash_attn_is_missing(gpu: Callable[..., None]) -> None:
    gpu(AMPERE, flash_attn=False)
    name, kernel = choose_kernel("auto", gpu=True)
    assert kernel is torch_kernel
    assert name.startswith("torch varlen (no flash-attn:")


def test_auto_takes_sdpa_on_a_gpu_without_flash_attention(gpu: Callable[..., None]) -> None:
    gpu(TURING, flash_attn=True)
    assert choose_kernel("auto", gpu=True)[1] is sdpa_kernel


def test_sdpa_is_taken_where_it_is_asked_for(gpu: Callable[..., None]) -> None:
    gpu(AMPERE, flash_attn=True)
    assert choose_kernel("sdpa", gpu=True)[1] is sdpa_kernel


def test_auto_takes_sdpa_on_a_cpu() -> None:
    assert choose_kernel("auto", gpu=False)[1] is sdpa_kernel


def test_flash_attention_is_refused_without_a_gpu() -> None:
    with pytest.raises(StageError, match="this pod's GPU is missing") as caught:
        choose_kernel("flash-attention", gpu=False)
    assert caught.value.code == ExitCode.CONFIGURATION


def test_flash_attention_is_refused_on_a_gpu_that_is_too_old(gpu: Callable[..., None]) -> None:
    gpu(TURING, flash_attn=True)
    with pytest.raises(StageError, match="Ampere or newer"):
        choose_kernel("flash-attention", gpu=True)


def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Documents]:
    torch.manual_seed(0)
    edges = [0, 5, 6, 24]
    query, key, value = torch.randn(24, 6, 8), torch.randn(24, 2, 8), torch.randn(24, 2, 8)
    return query, key, value, Documents(edges, torch.tensor(edges, dtype=torch.int32), 18)


def test_flash_attn_is_called_as_its_signature_wants(gpu: Callable[..., None]) -> None:
    gpu(AMPERE, flash_attn=True)
    query, key, value, documents = case()
    found = flash_kernel(query, key, value, documents)
    assert found.dtype == torch.float32
    assert torch.allclose(found, sdpa_kernel(query, key, value, documents), atol=0.05)  # bfloat16 between


def test_torchs_kernel_takes_what_it_is_given_and_gives_gradients_of_every_input() -> None:
    """torch's own description of the operator, without its kernel."""
    with FakeTensorMode():
        query, key = torch.empty(24, 6, 8, requires_grad=True), torch.empty(24, 2, 8, requires_grad=True)
        value = torch.empty(24, 2, 8, requires_grad=True)
        borders = torch.empty(4, dtype=torch.int32)
        mixed = torch_kernel(query, key, value, Documents([0, 5, 6, 24], borders, 18))
        mixed.sum().backward()  # type: ignore[no-untyped-call]
        assert (mixed.shape, mixed.dtype) == (query.shape, torch.float32)
        assert [each.grad is not None and each.grad.shape for each in (query, key, value)] == [
            query.shape,
            key.shape,
            value.shape,
        ]


def _flash_attn() -> ModuleType:
    """flash_attn_varlen_func of flash-attn 2.8.3: its signature and its demands, computed by sdpa."""
    module = ModuleType("flash_attn")

    def flash_attn_varlen_func(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: torch.Tensor | None = None,
        deterministic: bool = False,
        return_attn_probs: bool = False,
        block_table: torch.Tensor | None = None,
    ) -> torch.Tensor:
        assert all(part.dtype == torch.bfloat16 and part.stride(-1) == 1 for part in (q, k, v))
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        lengths = [end - start for start, end in pairwise(cu_seqlens_k.tolist())]
        assert type(max_seqlen_q) is type(max_seqlen_k) is int
        assert max_seqlen_q == max_seqlen_k == max(lengths)
        assert causal
        assert q.shape[1] % k.shape[1] == 0
        return sdpa_kernel(q, k, v, Documents(cu_seqlens_q.tolist(), cu_seqlens_q, max_seqlen_q))

    module.flash_attn_varlen_func = flash_attn_varlen_func  # type: ignore[attr-defined]
    return module
