"""Which engine serves, and how it shares a model out among GPUs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_operator.api.status import ModelStatus
from falcon_operator.policy.engine import Split, engine_of, split
from falcon_trainer.config import Serve

FALCON_7B = ModelStatus(attention_heads=71, key_value_heads=1, layers=32)
FALCON_40B = ModelStatus(attention_heads=128, key_value_heads=8, layers=60)
FALCON_180B = ModelStatus(attention_heads=232, key_value_heads=8, layers=80)


@pytest.mark.parametrize(
    ("serve", "expected"),
    [
        pytest.param(Serve(), "transformers", id="auto without GPUs"),
        pytest.param(Serve(gpus=1), "vllm", id="auto with GPUs"),
        pytest.param(Serve(gpus=1, engine="transformers"), "transformers", id="transformers with GPUs"),
        pytest.param(Serve(gpus=2, engine="vllm"), "vllm", id="vllm with GPUs"),
    ],
)
def test_the_engine(serve: Serve, expected: str) -> None:
    assert engine_of(serve) == expected


SPLITS: dict[str, tuple[int, ModelStatus | None, Split]] = {
    "Falcon-7B has 71 heads, which nothing divides": (4, FALCON_7B, Split(1, 4)),
    "Falcon-7B on one GPU": (1, FALCON_7B, Split(1, 1)),
    "Falcon-40B on four GPUs": (4, FALCON_40B, Split(4, 1)),
    "Falcon-40B on sixteen GPUs, more than it has key-value heads": (16, FALCON_40B, Split(16, 1)),
    "Falcon-180B on eight GPUs": (8, FALCON_180B, Split(8, 1)),
    "Falcon-180B on six GPUs": (6, FALCON_180B, Split(2, 3)),
    "Falcon-180B on sixteen GPUs: 232 is no multiple of 16": (16, FALCON_180B, Split(8, 2)),
    "a cut that the heads allow and the key-value heads do not": (
        6,
        ModelStatus(attention_heads=12, key_value_heads=4, layers=8),
        Split(2, 3),
    ),
    "a model that nothing is known of is not cut": (8, None, Split(1, 8)),
    "a status of an older release": (8, ModelStatus(parameters=1), Split(1, 8)),
    "fewer layers than GPUs": (8, ModelStatus(attention_heads=71, key_value_heads=1, layers=2), Split(1, 2)),
    "no GPU at all, which acceptance refuses": (0, FALCON_7B, Split(1, 1)),
}


@pytest.mark.parametrize("name", SPLITS)
def test_the_split(name: str) -> None:
    gpus, model, expected = SPLITS[name]
    assert split(gpus, model) == expected


@given(st.integers(1, 16), st.integers(1, 256), st.integers(1, 16), st.integers(1, 100))
def test_every_split_is_one_that_vllm_accepts(gpus: int, heads: int, key_value_heads: int, layers: int) -> None:
    model = ModelStatus(attention_heads=heads, key_value_heads=key_value_heads, layers=layers)
    tensor, pipeline = split(gpus, model)
    assert heads % tensor == 0
    assert key_value_heads % tensor == 0 or tensor % key_value_heads == 0
    assert 1 <= pipeline <= layers
    assert tensor * pipeline == gpus or pipeline == layers
