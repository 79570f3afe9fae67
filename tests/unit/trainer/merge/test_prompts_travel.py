"""The prompt format travels: what the adapter's folder and the merged model's build of messages is what was trained."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from falcon_trainer import layout as layouts
from falcon_trainer.config import Lora, RunConfig
from falcon_trainer.data.prepare import prepare
from falcon_trainer.data.store import PackedRows
from falcon_trainer.generate.answering import generate
from falcon_trainer.identity import claim
from falcon_trainer.merge.stage import merge
from falcon_trainer.outcome import StageError
from falcon_trainer.serve.errors import ApiError
from falcon_trainer.serve.model import load_served_model
from falcon_trainer.serve.question import chat_question, completion_question
from falcon_trainer.serve.schema import ChatAsk, CompletionAsk
from falcon_trainer.train.adapter import save_adapter
from tests.unit.trainer.conversations import CHATML, messages
from tests.unit.trainer.merge.test_merge import adapter_tensors
from tests.unit.trainer.workshop import Workshop

LORA = Lora(rank=4, alpha=8, dropout=0.0)
TURNS = messages(("system", "s"), ("user", "a"), ("assistant", "\n\nb "), ("user", "c"), ("assistant", "d"))


def folders(tmp_path: Path, records: list[dict[str, Any]], **dataset: object) -> tuple[Workshop, Path, Path]:
    """A prepared run on these records, its adapter's folder and its merged model's.

    The base brings a chat template of its own, which nobody is trained to answer in.
    """
    shop = Workshop(tmp_path)
    shop.put_records("\n".join(map(json.dumps, records)))
    base = shop.put_base()
    (base / "chat_template.jinja").write_text("the base's own")
    assert AutoTokenizer.from_pretrained(base).chat_template == "the base's own"
    config = config_of(shop, **dataset)
    prepare(config, shop.beats("prepare"), shop.layout)
    facts: dict[str, Any] = {"identity": claim(config, shop.layout), "step": 6, "loss": "0.5"}
    adapter, _ = save_adapter(shop.layout, config.model, LORA, adapter_tensors(base, LORA), facts)
    result: Any = merge(config, shop.beats("merge"), shop.layout)
    return shop, adapter, shop.layout.workspace / result["merged"]["path"]


def config_of(shop: Workshop, **dataset: object) -> RunConfig:
    return shop.config(lora=LORA.to_wire(), dataset={"packing": "none", "sequenceLength": 512, **dataset})


def trained_prompt(shop: Workshop) -> list[int]:
    """Of the last row: the tokens before the last answer."""
    rows = PackedRows(shop.layout.data)
    row = rows.row(len(rows) - 1)
    labels = row["labels"].tolist()
    start = max(place for place in range(1, len(labels)) if labels[place] >= 0 > labels[place - 1])
    ids: list[int] = row["input_ids"].tolist()[:start]
    return ids


@pytest.fixture(autouse=True)
def _claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "SOURCES", tmp_path / "sources")


@pytest.mark.parametrize("template", [None, CHATML], ids=["the recipe's template", "an own template"])
def test_both_folders_build_the_trained_prompt_of_a_chat(tmp_path: Path, template: str | None) -> None:
    own = {"template": template} if template else {}
    shop, adapter, merged = folders(tmp_path, [{"messages": TURNS}], **own)
    for folder in (adapter, merged):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        built = tokenizer.apply_chat_template(TURNS[:-1], add_generation_prompt=True, return_dict=True)
        assert built["input_ids"] == trained_prompt(shop)
        assert tokenizer.pad_token_id != tokenizer.eos_token_id
    served = load_served_model("run", merged)
    question = chat_question(ChatAsk.model_validate({"model": "run", "messages": TURNS[:-1]}), served)
    assert question.prompt_tokens == len(trained_prompt(shop))


def test_a_model_of_prompts_and_completions_has_no_chat_template_and_says_where_to_ask(tmp_path: Path) -> None:
    prompt = "Once upon a time "
    shop, adapter, merged = folders(tmp_path, [{"prompt": prompt, "completion": "\n\nthere was a carp."}])
    for folder in (adapter, merged):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.chat_template is None
        assert tokenizer(prompt)["input_ids"] == trained_prompt(shop)
    assert "no chat template" in (adapter / "README.md").read_text()
    served = load_served_model("run", merged)
    question = completion_question(CompletionAsk.model_validate({"model": "run", "prompt": prompt}), served)
    assert question.prompt_tokens == len(trained_prompt(shop))
    with pytest.raises(ApiError, match="ask /v1/completions, with the whole prompt") as caught:
        chat_question(ChatAsk.model_validate({"model": "run", "messages": TURNS[:2]}), served)
    assert (caught.value.status, caught.value.code) == (400, "no_chat_template")
    (answer,) = generate(config_of(shop), shop.layout, [prompt], which="adapter", max_new_tokens=4)
    assert answer


def test_a_model_of_texts_is_merged_and_checked_by_their_beginnings(tmp_path: Path) -> None:
    shop, adapter, merged = folders(tmp_path, [{"text": "Carp live in ponds."}])
    assert not list(merged.glob("*.jinja"))
    assert AutoTokenizer.from_pretrained(adapter).chat_template is None
    (sample,) = json.loads((shop.layout.data / "prompts.json").read_text())
    assert sample["prompt"] == "Carp live"


def test_a_base_whose_tokenizer_reads_served_prompts_otherwise_is_refused_before_rows_are_written(
    tmp_path: Path,
) -> None:
    shop = Workshop(tmp_path)
    shop.put_records(json.dumps({"text": "Carp live in ponds."}))
    base = shop.put_base()
    backend = Tokenizer.from_file(str(base / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(single=">>PREFIX<< $A", special_tokens=[(">>PREFIX<<", 1)])
    backend.save(str(base / "tokenizer.json"))
    with pytest.raises(StageError, match="when it is served") as caught:
        prepare(config_of(shop), shop.beats("prepare"), shop.layout)
    assert caught.value.reason == "TokenizerNotUsable"
    assert not list(shop.layout.root.glob("*data*"))
