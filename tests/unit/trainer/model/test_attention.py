"""Documents in one row never see each other: logits and gradients equal each document's alone, in the stock model."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import FalconForCausalLM
from transformers.models.falcon.modeling_falcon import FalconAttention

from falcon_trainer.config import Lora
from falcon_trainer.model.attention import Documents, check_stock, sdpa_kernel
from falcon_trainer.model.lora import lora_config
from falcon_trainer.model.packed import PackedFalcon
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.workshop import ELEVEN_B, SEVEN_B, small_falcon

Batch = list[list[int]]
"""Lengths of the documents of each row."""

VARIANTS: dict[str, dict[str, Any]] = {
    "7B: 71 heads share one K/V head": SEVEN_B | {"num_attention_heads": 71, "hidden_size": 284},
    "40B: 16 heads to a K/V head": {"num_attention_heads": 32, "num_kv_heads": 2, "hidden_size": 128},
    "180B: 29 heads to a K/V head": {"num_attention_heads": 58, "num_kv_heads": 2, "hidden_size": 232},
    "11B: one layer norm, own head": ELEVEN_B,
    "one K/V head for each head": {"num_kv_heads": 4},
    "sequential layers, with bias": {
        "new_decoder_architecture": False,
        "parallel_attn": False,
        "multi_query": False,
        "num_kv_heads": 4,
        "bias": True,
    },
}
BATCHES: dict[str, Batch] = {
    "a row of one document": [[48]],
    "a row of two documents": [[31, 17]],
    "a row of forty documents": [[1 + number % 4 for number in range(40)]],
    "rows of one, two and forty documents in one micro-batch, padded": [[64], [3, 40], [1 + n % 2 for n in range(40)]],
}
IGNORED = -100


def pair(flags: dict[str, Any]) -> tuple[FalconForCausalLM, PackedFalcon]:
    """A stock Falcon and ours with the same weights, their logits of the order of one."""
    ours = small_falcon(**{"initializer_range": 0.1} | flags)
    stock = FalconForCausalLM(ours.config).eval()
    stock.load_state_dict(ours.state_dict())
    return stock, ours


def adapted(model: Any, seed: int = 3) -> Any:
    """The model with an adapter that changes it."""
    torch.manual_seed(seed)
    model = get_peft_model(model, lora_config(Lora(rank=4, alpha=8, dropout=0.0), ""))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def packed(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, positions and labels [rows, T]; what a row lacks is filled up as collate fills it: one more document."""
    length = max(map(sum, batch))
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 101, (len(batch), length), generator=generator)
    filled = [[*row, length - sum(row)] for row in batch]
    positions = torch.stack([torch.cat([torch.arange(part) for part in row]) for row in filled])
    used = torch.stack([torch.arange(length) < sum(row) for row in batch])
    return tokens, positions, tokens.masked_fill(~used | (positions == 0), IGNORED)


def documents(batch: Batch, tokens: torch.Tensor) -> list[tuple[int, slice, torch.Tensor]]:
    """Row, place in the row, and tokens of each document."""
    found = []
    for row, lengths in enumerate(batch):
        start = 0
        for length in lengths:
            found.append((row, slice(start, start + length), tokens[row, start : start + length]))
            start += length
    return found


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("flags", VARIANTS.values(), ids=VARIANTS.keys())
def test_packed_logits_equal_those_of_each_document_alone(flags: dict[str, Any], batch: Batch) -> None:
    stock, ours = pair(flags)
    tokens, positions, _ = packed(batch)
    with torch.inference_mode():
        found = ours.lm_head(ours.hidden_states(tokens, positions))
        assert float(found.abs().max()) > 0.5, "logits this small would agree whatever was computed"
        for row, place, document in documents(batch, tokens):
            alone = stock(input_ids=document[None]).logits[0]
            assert float((found[row, place] - alone).abs().max()) <= 1e-5


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("flags", list(VARIANTS.values())[:3], ids=list(VARIANTS.keys())[:3])
def test_gradients_of_the_adapter_equal_those_of_each_document_alone(flags: dict[str, Any], batch: Batch) -> None:
    stock, ours = map(adapted, pair(flags))
    tokens, positions, labels = packed(batch)
    count = torch.tensor(float((labels != IGNORED).sum()))
    ours(input_ids=tokens, position_ids=positions, labels=labels, num_items_in_batch=count)["loss"].backward()
    for _, _, document in documents(batch, tokens):
        if len(document) > 1:
            stock(input_ids=document[None], labels=document[None], num_items_in_batch=count).loss.backward()
    expected = {name: parameter.grad for name, parameter in stock.named_parameters() if parameter.requires_grad}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 1e-2
    for name, parameter in ours.named_parameters():
        assert (parameter.grad is None) == (name not in expected), name
        if parameter.grad is not None:
            assert float((parameter.grad - expected[name]).abs().max()) <= 1e-5, name


def test_the_stock_model_fails_this_test() -> None:
    """The control: with positions that begin anew, transformers' own attention still reads across the border."""
    stock, _ = pair({})
    tokens, positions, _ = packed([[31, 17]])
    with torch.inference_mode():
        found = stock(input_ids=tokens, position_ids=positions).logits[0, 31:48]
        alone = stock(input_ids=tokens[:, 31:48]).logits[0]
    assert float((found - alone).abs().max()) > 0.01


def test_a_base_that_is_not_frozen_has_the_gradients_of_the_stock_model() -> None:
    stock, ours = pair({"tie_word_embeddings": False})
    tokens, positions, _ = packed([[31, 17]])
    ours.lm_head(ours.hidden_states(tokens, positions)).square().sum().backward()
    parts = [stock(input_ids=document[None]).logits for _, _, document in documents([[31, 17]], tokens)]
    sum(part.square().sum() for part in parts).backward()
    theirs = dict(stock.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = theirs[name].grad
        assert torch.allclose(parameter.grad, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4), name


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Elements of the largest tensor that any operator returns, and the head counts that attention is given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0
        self.heads: set[tuple[int, int]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "scaled_dot_product" in str(func) and "backward" not in str(func):
            self.heads.add((args[0].shape[1], args[1].shape[1]))
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_mask_is_made_and_keys_keep_one_head_per_group() -> None:
    stock, ours = pair({"num_attention_heads": 8, "num_kv_heads": 2})
    length = 640
    tokens, positions = torch.zeros(1, length, dtype=torch.long), torch.arange(length)[None] % 160
    with torch.inference_mode(), Largest() as seen:
        ours.hidden_states(tokens, positions)
    assert seen.heads == {(8, 2)}
    assert seen.elements < length * length
    with torch.inference_mode(), Largest() as seen:  # the control
        stock.transformer(tokens, position_ids=positions)
    assert seen.heads == {(8, 8)}
    assert seen.elements >= length * length


def test_borders_follow_each_micro_batch() -> None:
    _, ours = pair({})
    tokens, positions, _ = packed([[31, 17]])
    with torch.inference_mode():
        first = ours.hidden_states(tokens, positions)
        ours.hidden_states(tokens, torch.arange(48)[None])
        assert torch.equal(ours.hidden_states(tokens, positions.clone()), first)


def test_alibi_is_refused_with_a_sentence() -> None:
    with pytest.raises(StageError, match="ALiBi positions") as caught:
        small_falcon(alibi=True)
    assert caught.value.code == ExitCode.CONFIGURATION


def test_a_patched_attention_class_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    check_stock()
    monkeypatch.setattr(FalconAttention, "forward", lambda self, hidden_states: hidden_states)
    with pytest.raises(StageError, match="not the known one"):
        check_stock()


def edges(lengths: Sequence[int]) -> Documents:
    ends = [sum(lengths[:count]) for count in range(len(lengths) + 1)]
    return Documents(ends, torch.tensor(ends, dtype=torch.int32), max(lengths))


def test_the_kernel_equals_softmax_written_out() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(24, 6, 8), torch.randn(24, 2, 8), torch.randn(24, 2, 8)
    found = sdpa_kernel(query, key, value, edges([5, 1, 18]))
    document = torch.repeat_interleave(torch.arange(3), torch.tensor([5, 1, 18]))
    place = torch.arange(24)
    seen = (document[:, None] == document) & (place[:, None] >= place)
    for head in range(6):
        scores = query[:, head] @ key[:, head // 3].T / 8**0.5
        expected = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value[:, head // 3]
        assert torch.allclose(found[:, head], expected, atol=1e-6)
