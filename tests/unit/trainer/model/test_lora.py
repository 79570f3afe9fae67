"""An adapter of every variant is PEFT's own: the stock model with it computes what ours was trained to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import FalconForCausalLM

from falcon_trainer.config import FALCON_LINEARS, Lora
from falcon_trainer.model.lora import ADAPTER_FILE, lora_config, saved_name
from falcon_trainer.model.shapes import adapter_shapes, base_shapes
from tests.unit.trainer.workshop import SEVEN_B, small_falcon

ADAPTERS: dict[str, Lora] = {
    "LoRA on all four linears": Lora(rank=4, alpha=8),
    "rsLoRA on all four linears": Lora(rank=4, alpha=8, variant="rslora"),
    "LoRA on the attention alone, without dropout": Lora(rank=3, target_modules=["query_key_value"], dropout=0.0),
    "rsLoRA on the last linear alone": Lora(rank=5, target_modules=["dense_4h_to_h"], variant="rslora"),
}


@pytest.mark.parametrize("flags", [{}, SEVEN_B], ids=["40B and 180B", "7B"])
@pytest.mark.parametrize("lora", ADAPTERS.values(), ids=ADAPTERS.keys())
def test_stock_peft_computes_with_the_adapter_what_ours_does(lora: Lora, flags: dict[str, Any], tmp_path: Path) -> None:
    base = small_falcon(**flags)
    stock = FalconForCausalLM(base.config).eval()
    stock.load_state_dict(base.state_dict())
    ours = trained(base, lora)
    save(ours, lora, tmp_path)
    theirs = PeftModel.from_pretrained(stock, str(tmp_path)).eval()
    tokens, positions = torch.arange(20)[None] * 5, torch.arange(20)[None]
    with torch.inference_mode():
        plain = base.lm_head(base.hidden_states(tokens, positions))
        with ours.disable_adapter():
            without = base.lm_head(base.hidden_states(tokens, positions))
        found = theirs(input_ids=tokens).logits
    assert torch.allclose(found, plain, atol=1e-4)
    assert not torch.allclose(found, without, atol=1e-2), "the adapter changes nothing"


@pytest.mark.parametrize("lora", ADAPTERS.values(), ids=ADAPTERS.keys())
def test_its_tensors_and_its_scale_are_those_that_merge_and_checks_expect(lora: Lora) -> None:
    base = small_falcon()
    expected = adapter_shapes(base_shapes(base.config), lora)
    ours = get_peft_model(base, lora_config(lora, ""))
    found = {saved_name(n): tuple(p.shape) for n, p in ours.named_parameters() if p.requires_grad}
    assert found == expected
    layers = [module for module in ours.modules() if hasattr(module, "scaling")]
    assert len(layers) == 2 * len(lora.target_modules)
    assert all(layer.scaling["default"] == pytest.approx(lora.scale) for layer in layers)


def test_the_default_is_all_four_linears_with_a_dropout_of_a_tenth() -> None:
    config = lora_config(Lora(), "")
    assert config.target_modules == set(FALCON_LINEARS)
    assert (config.r, config.lora_alpha, config.lora_dropout, config.use_rslora) == (64, 16, 0.1, False)


def trained(base: Any, lora: Lora) -> Any:
    """Ours after some steps of plain gradient descent."""
    torch.manual_seed(0)
    ours = get_peft_model(base, lora_config(lora, "")).train()
    tokens, positions = torch.arange(40).reshape(2, 20) * 2, torch.arange(20).repeat(2, 1)
    parameters = [parameter for parameter in ours.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    for _ in range(3):
        ours(input_ids=tokens, position_ids=positions, labels=tokens)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return ours.eval()


def save(ours: Any, lora: Lora, folder: Path) -> None:
    tensors = {saved_name(n): p.detach() for n, p in ours.named_parameters() if p.requires_grad}
    save_file(tensors, folder / ADAPTER_FILE)
    lora_config(lora, "").save_pretrained(str(folder))
