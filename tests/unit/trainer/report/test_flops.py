"""What a token costs: N of the published Falcons, and how it changes with what is trained and recomputed."""

from typing import Any, Literal

import pytest
from transformers import FalconConfig

from falcon_trainer.model.shapes import base_shapes
from falcon_trainer.report.flops import EMBEDDING, Work, work
from falcon_trainer.report.peak import of_data_sheet, peak

SEVEN_B = {
    "hidden_size": 4544,
    "num_hidden_layers": 32,
    "num_attention_heads": 71,
    "multi_query": True,
    "new_decoder_architecture": False,
}
GROUPED = {"num_kv_heads": 8, "new_decoder_architecture": True}
FORTY_B = {"hidden_size": 8192, "num_hidden_layers": 60, "num_attention_heads": 128, **GROUPED}
HUNDRED_EIGHTY_B = {"hidden_size": 14848, "num_hidden_layers": 80, "num_attention_heads": 232, **GROUPED}

LAYERS = 4
BASE = {
    EMBEDDING: (1000, 8),
    "transformer.ln_f.weight": (8,),
    **{f"transformer.h.{layer}.mlp.dense_h_to_4h.weight": (32, 8) for layer in range(LAYERS)},
    **{f"transformer.h.{layer}.input_layernorm.weight": (8,) for layer in range(LAYERS)},
}
DECODER, HEAD = LAYERS * 32 * 8, 1000 * 8


def cost(
    checkpointing: Literal["full", "selective", "none"] = "full",
    selective_layers: int | None = None,
    trained_share: float = 1.0,
) -> Work:
    return work(
        BASE,
        layers=LAYERS,
        checkpointing=checkpointing,
        selective_layers=selective_layers,
        trained_share=trained_share,
    )


@pytest.mark.parametrize(
    ("model", "billions"),
    [(SEVEN_B, 6.92), (FORTY_B, 41.3), (HUNDRED_EIGHTY_B, 178.55)],
    ids=["Falcon-7B", "Falcon-40B", "Falcon-180B"],
)
def test_n_of_the_published_models(model: dict[str, Any], billions: float) -> None:
    shapes = base_shapes(FalconConfig(vocab_size=65_024, bias=False, alibi=False, parallel_attn=True, **model))
    found = work(
        shapes, layers=model["num_hidden_layers"], checkpointing="full", selective_layers=None, trained_share=1
    )
    assert (found.decoder_parameters + found.head_parameters) / 1e9 == pytest.approx(billions, rel=0.003)


def test_layer_norms_are_not_multiplied_with_and_the_embedding_counts_once_as_the_head() -> None:
    assert (cost().decoder_parameters, cost().head_parameters) == (DECODER, HEAD)


def test_an_untied_head_counts_like_a_tied_one() -> None:
    untied = work(
        BASE | {"lm_head.weight": (1000, 8)},
        layers=LAYERS,
        checkpointing="full",
        selective_layers=None,
        trained_share=1,
    )
    assert untied == cost()


def test_a_token_costs_4n_and_full_recomputation_makes_it_6n_of_the_decoder() -> None:
    assert cost().model_flops == 4 * (DECODER + HEAD)
    assert cost().hardware_flops == 6 * DECODER + 4 * HEAD


def test_the_head_counts_for_trained_tokens_only() -> None:
    assert cost(trained_share=0.25).model_flops == 4 * DECODER + HEAD


@pytest.mark.parametrize(
    ("checkpointing", "layers", "again"),
    [
        ("full", None, 1.0),
        ("selective", 1, 0.75),
        ("selective", None, 0.0),
        ("selective", 99, 0.0),
        ("none", None, 0.0),
    ],
    ids=["full", "the first of four layers kept", "all kept", "more than there are", "none"],
)
def test_what_is_computed_twice(
    checkpointing: Literal["full", "selective", "none"], layers: int | None, again: float
) -> None:
    assert cost(checkpointing, layers).hardware_flops - cost().model_flops == 2 * DECODER * again


@pytest.mark.parametrize(
    ("name", "tera_flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA GH200 480GB", 989.5),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA A10G", 70),
        ("NVIDIA A10", 125),
        ("NVIDIA A1000", None),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_the_peak_of_a_gpu_by_its_name(name: str, tera_flops: float | None) -> None:
    assert of_data_sheet(name) == (tera_flops and tera_flops * 1e12)


def test_the_peak_of_a_cpu_is_measured_without_touching_the_random_state() -> None:
    import torch

    before = torch.get_rng_state()
    found = peak(gpu=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert 1e8 < found.flops < 1e14
    assert "measured" in found.origin
