"""Documents in one row never see each other: logits equal each document's alone, in the stock model."""

from typing import Any

import pytest
import torch
from transformers import FalconForCausalLM
from transformers.models.falcon.modeling_falcon import FalconAttention

from falcon_trainer.model.attention import check_stock, choose_kernel, sdpa_kernel
from falcon_trainer.model.packed import PackedFalcon
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.workshop import ELEVEN_B, SEVEN_B, small_falcon

VARIANTS = {
    "7B (one K/V head for all)": SEVEN_B,
    "40B and 180B (grouped K/V heads)": {},
    "11B (one layer norm)": ELEVEN_B,
    "one K/V head for each": {"num_kv_heads": 4},
}
DOCUMENTS = (9, 1, 14, 8)
T = 32


def pair(flags: dict[str, Any]) -> tuple[FalconForCausalLM, PackedFalcon]:
    """A stock Falcon and ours with the same weights."""
    ours = small_falcon(**flags)
    stock = FalconForCausalLM(ours.config).eval()
    stock.load_state_dict(ours.state_dict())
    return stock, ours


def packed(rows: int) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Tokens and positions [rows, T], and the documents one by one."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 101, (rows, T), generator=generator)
    positions = torch.cat([torch.arange(length) for length in DOCUMENTS]).repeat(rows, 1)
    return tokens, positions, [part for row in tokens for part in row.split(DOCUMENTS)]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("flags", VARIANTS.values(), ids=VARIANTS.keys())
def test_packed_logits_equal_those_of_each_document_alone(flags: dict[str, Any], rows: int) -> None:
    stock, ours = pair(flags)
    tokens, positions, documents = packed(rows)
    with torch.inference_mode():
        found = ours.lm_head(ours.hidden_states(tokens, positions)).reshape(-1, 101)
        expected = torch.cat([stock(input_ids=document[None]).logits[0] for document in documents])
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_the_stock_model_fails_this_test() -> None:
    """The control: with positions that begin anew, transformers' own attention still reads across the border."""
    stock, _ = pair({})
    tokens, positions, documents = packed(1)
    with torch.inference_mode():
        found = stock(input_ids=tokens, position_ids=positions).logits[0]
        expected = torch.cat([stock(input_ids=document[None]).logits[0] for document in documents])
    assert float((found - expected).abs().max()) > 0.01 * float(expected.abs().max())


def test_gradients_equal_those_of_each_document_alone() -> None:
    stock, ours = pair({"tie_word_embeddings": False})
    tokens, positions, documents = packed(1)
    ours.lm_head(ours.hidden_states(tokens, positions)).square().sum().backward()
    sum(stock(input_ids=document[None]).logits.square().sum() for document in documents).backward()
    theirs = dict(stock.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = theirs[name].grad
        assert torch.allclose(parameter.grad, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4), name


def test_borders_follow_each_micro_batch() -> None:
    _, ours = pair({})
    tokens, positions, _ = packed(1)
    with torch.inference_mode():
        first = ours.hidden_states(tokens, positions)
        ours.hidden_states(tokens, torch.arange(T)[None])
        assert torch.equal(ours.hidden_states(tokens, positions.clone()), first)


def test_a_patched_attention_class_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    check_stock()
    monkeypatch.setattr(FalconAttention, "forward", lambda self, hidden_states: hidden_states)
    with pytest.raises(StageError, match="not the known one"):
        check_stock()


def test_without_a_gpu_auto_takes_sdpa_and_flash_attention_is_refused() -> None:
    assert choose_kernel("auto", gpu=False)[1] is sdpa_kernel
    with pytest.raises(StageError) as caught:
        choose_kernel("flash-attention", gpu=False)
    assert caught.value.code == ExitCode.CONFIGURATION
