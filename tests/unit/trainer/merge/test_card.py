"""The cards of adapters and merged models: what they name of the base and of the records."""

from pathlib import Path

import pytest

from falcon_trainer import layout as layouts
from falcon_trainer.config import Model, RunConfig
from falcon_trainer.merge.card import card
from falcon_trainer.train.adapter import card as adapter_card
from tests.unit.trainer.workshop import Workshop

HUB, CLAIM = "hf://tiiuae/falcon-7b", "pvc://models/base"
FRONT = {
    HUB: ["base_model: tiiuae/falcon-7b"],
    CLAIM: [],
}


def config(tmp_path: Path, source: str, uri: str = "pvc://data/records.jsonl") -> RunConfig:
    return Workshop(tmp_path).config(model={"source": source}, dataset={"sources": [{"uri": uri}]})


def fields(text: str) -> list[str]:
    """Of the front matter, those about the base."""
    _, front, _ = text.split("---\n", 2)
    return [line for line in front.splitlines() if line.startswith("base_model")]


@pytest.mark.parametrize("source", [HUB, CLAIM])
def test_a_base_is_a_field_of_the_card_where_the_hub_has_it(tmp_path: Path, source: str) -> None:
    merged = card(config(tmp_path, source), {}, {}, template=True)
    adapter = adapter_card(Model(source=source), "tiny", {"step": 6, "loss": "0.5"}, template=True)
    assert fields(adapter) == FRONT[source]
    assert fields(merged) == [*FRONT[source], *(["base_model_relation: finetune"] if FRONT[source] else [])]
    for text in (merged, adapter):
        assert f"`{source}`" in text
        assert str(layouts.SOURCES) not in text


def test_a_presigned_address_is_shown_without_its_signature(tmp_path: Path) -> None:
    text = card(config(tmp_path, HUB, "https://store/records.jsonl?X-Amz-Signature=secret"), {}, {}, template=True)
    assert "| Data | `https://store/records.jsonl` |" in text
    assert "secret" not in text
