"""The facts of a base that decide how it can be shared out among GPUs."""

from typing import Any

import pytest
from transformers import FalconConfig

from falcon_trainer.model.shapes import attention_facts, base_shapes

GROUPED = {"new_decoder_architecture": True, "multi_query": True}
PUBLISHED: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "falcon-7b": ({"num_hidden_layers": 32, "num_attention_heads": 71, "hidden_size": 4544}, (32, 71, 1)),
    "falcon-40b": (
        GROUPED | {"num_hidden_layers": 60, "num_attention_heads": 128, "num_kv_heads": 8, "hidden_size": 8192},
        (60, 128, 8),
    ),
    "falcon-180b": (
        GROUPED | {"num_hidden_layers": 80, "num_attention_heads": 232, "num_kv_heads": 8, "hidden_size": 14848},
        (80, 232, 8),
    ),
    "a head of keys for each of queries": (
        {"num_hidden_layers": 2, "num_attention_heads": 4, "multi_query": False, "hidden_size": 64},
        (2, 4, 4),
    ),
}


@pytest.mark.parametrize(("settings", "expected"), PUBLISHED.values(), ids=PUBLISHED)
def test_heads_are_counted_as_the_weights_hold_them(settings: dict[str, Any], expected: tuple[int, int, int]) -> None:
    config = FalconConfig(bias=False, **settings)
    facts = attention_facts(config)
    assert (facts["layers"], facts["attentionHeads"], facts["keyValueHeads"]) == expected
    head = config.hidden_size // config.num_attention_heads
    fused = base_shapes(config)["transformer.h.0.self_attention.query_key_value.weight"]
    assert fused == ((facts["attentionHeads"] + 2 * facts["keyValueHeads"]) * head, config.hidden_size)
