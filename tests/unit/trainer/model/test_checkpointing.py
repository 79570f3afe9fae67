"""Activations that are computed again give the same gradients, and cost the memory and the time that they should."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from falcon_trainer.config import FALCON_LINEARS, Lora
from falcon_trainer.model.checkpointing import Mode
from falcon_trainer.model.lora import lora_config
from tests.unit.trainer.workshop import ELEVEN_B, SEVEN_B, small_falcon

RANK, LAYERS = 4, 2
MODES: dict[str, tuple[Mode, int | None]] = {
    "full": ("full", None),
    "selective": ("selective", None),
    "selective in the first layer": ("selective", 1),
    "selective in more layers than there are": ("selective", 99),
}
FLAGS: dict[str, dict[str, Any]] = {
    "7B": SEVEN_B,
    "40B and 180B": {},
    "11B": ELEVEN_B,
    "sequential layers": {
        "new_decoder_architecture": False,
        "parallel_attn": False,
        "multi_query": False,
        "num_kv_heads": 4,
    },
    "with bias, dropout of the base, and a rank as wide as the model": {
        "bias": True,
        "hidden_dropout": 0.2,
        "hidden_size": RANK * 4,
        "num_attention_heads": 4,
    },
}
TARGETS: dict[str, list[str]] = {
    "all four linears": list(FALCON_LINEARS),
    "query_key_value alone": ["query_key_value"],
    "dense_h_to_4h alone": ["dense_h_to_4h"],
    "dense_4h_to_h alone": ["dense_4h_to_h"],
}
LENGTHS = (9, 1, 14, 8)


def model(flags: dict[str, Any], targets: list[str], mode: Mode, layers: int | None, dropout: float = 0.1) -> Any:
    """A model in training, its adapter away from its beginning."""
    falcon = small_falcon(**flags)
    torch.manual_seed(1)
    adapted = get_peft_model(falcon, lora_config(Lora(rank=RANK, dropout=dropout, target_modules=targets), ""))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    falcon.checkpoint_activations(mode, layers)
    return adapted.train()


def batch(rows: int = 2, repeat: int = 1) -> dict[str, torch.Tensor]:
    tokens = torch.randint(0, 101, (rows, sum(LENGTHS) * repeat), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in LENGTHS * repeat]).repeat(rows, 1)
    return {"input_ids": tokens, "position_ids": positions, "labels": tokens}


def gradients(adapted: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    adapted(**inputs)["loss"].backward()
    return {name: parameter.grad for name, parameter in adapted.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS.keys())
def test_gradients_are_those_of_kept_activations_bit_for_bit(flags: dict[str, Any], targets: list[str]) -> None:
    """With dropout: the masks are drawn again."""
    expected = gradients(model(flags, targets, "none", None), batch())
    assert any(bool(gradient.any()) for gradient in expected.values())
    for mode, layers in MODES.values():
        found = gradients(model(flags, targets, mode, layers), batch())
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), (mode, layers)


def test_micro_batches_may_be_in_flight_together() -> None:
    expected = gradients(model({}, TARGETS["all four linears"], "none", None, 0.0), batch())
    adapted = model({}, TARGETS["all four linears"], "selective", None, 0.0)
    whole = batch()
    rows = [{name: tensor[row : row + 1] for name, tensor in whole.items()} for row in range(2)]
    tokens = torch.tensor(float((whole["labels"][:, 1:] >= 0).sum()))
    losses = [adapted(**row, num_items_in_batch=tokens)["loss"] for row in rows]
    for loss in reversed(losses):
        loss.backward()
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter.grad, expected[name], rtol=1e-4, atol=1e-6), name


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts matrix products by the shape of their result, and attention kernels."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: Counter[tuple[int, ...]] = Counter()
        self.attention = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default:
            self.products[tuple(result.shape)] += 1
        self.attention += func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        return result


def backward_operators(mode: Mode, layers: int | None = None) -> Operators:
    adapted, inputs = model({"hidden_size": 80}, TARGETS["all four linears"], mode, layers), batch()
    loss = adapted(**inputs)["loss"]
    operators = Operators()
    with operators:
        loss.backward()
    return operators


def test_selective_computes_only_the_products_of_the_adapter_again() -> None:
    none, selective = backward_operators("none"), backward_operators("selective")
    again = selective.products - none.products
    assert sum(again.values()) > 0
    # Each adapter: [tokens, rank] once more, and of those whose sum with the base is needed, [tokens, out].
    tokens = 2 * sum(LENGTHS)
    assert again[tokens, RANK] == 4 * LAYERS
    outputs = {80: "dense or dense_4h_to_h", 160: "query_key_value", 320: "dense_h_to_4h"}
    assert all(shape == (tokens, RANK) or shape[1] in outputs for shape in again)
    assert sum(again.values()) <= 2 * 4 * LAYERS
    assert selective.attention == none.attention == 0


def test_full_computes_the_base_and_the_attention_again_and_the_first_layers_can_be_spared() -> None:
    full, first, selective = (backward_operators(*mode) for mode in (("full",), ("selective", 1), ("selective",)))
    spared = sum((full.products - selective.products).values())
    assert spared == 4 * LAYERS
    assert sum((full.products - first.products).values()) == 4
    assert (full.attention, first.attention, selective.attention) == (
        2 * len(LENGTHS) * LAYERS,
        2 * len(LENGTHS) * (LAYERS - 1),
        0,
    )


def kept_bytes(mode: Mode, layers: int | None = None) -> int:
    """Memory that a forward pass leaves allocated."""
    adapted, inputs = model({"hidden_size": 256}, TARGETS["all four linears"], mode, layers), batch(1, 16)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        loss = adapted(**inputs)["loss"]
    assert loss.requires_grad
    events = measured.profiler.kineto_results.events()
    return sum(event.nbytes() for event in events if event.name() == "[memory]")


def test_selective_keeps_more_than_full_and_much_less_than_none() -> None:
    full, first, selective, none = (
        kept_bytes(*mode) for mode in (("full", None), ("selective", 1), ("selective", None), ("none", None))
    )
    assert full < first < selective < none
    assert selective < 0.6 * none
    assert first - full == pytest.approx((selective - full) / LAYERS, rel=0.1)


def saved_shapes(compute: Callable[[], torch.Tensor]) -> set[tuple[int, ...]]:
    """Shapes of all tensors that autograd saves on the way to a result."""
    shapes: set[tuple[int, ...]] = set()

    def seen(tensor: torch.Tensor) -> torch.Tensor:
        shapes.add(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        assert compute().requires_grad
    return shapes


def test_no_matrix_of_the_base_is_held_for_the_backward_pass() -> None:
    """Under ZeRO-3 each would be a gathered one, so that in the end every rank held the whole base."""
    adapted = model({"hidden_size": 80, "num_kv_heads": 1}, TARGETS["all four linears"], "none", None)
    matrices = {tuple(p.shape) for p in adapted.parameters() if not p.requires_grad and p.dim() == 2}
    either_way = matrices | {shape[::-1] for shape in matrices}
    assert len(matrices) == 5  # four linears, and the embedding that is also the head
    assert not saved_shapes(lambda: adapted(**batch())["loss"]) & either_way


def test_the_gradient_of_the_embedded_tokens_is_not_asked_for() -> None:
    adapted = model({}, TARGETS["all four linears"], "selective", None)
    embedded = []
    adapted.get_input_embeddings().register_forward_hook(lambda module, inputs, output: embedded.append(output))
    gradients(adapted, batch())
    assert [output.requires_grad for output in embedded] == [False]
