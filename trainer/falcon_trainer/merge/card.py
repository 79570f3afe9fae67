"""README.md of a merged model: what it was made of, with which settings, and how it is loaded."""

from collections.abc import Mapping

from pydantic import JsonValue

from falcon_trainer.config import RunConfig
from falcon_trainer.model.source import card_base
from falcon_trainer.uris import shown

CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
{base_fields}tags: [falcon, lora]
---
# {run}

`{source}`, fine-tuned with LoRA; the adapter is merged into the weights.

| | |
| --- | --- |
{rows}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_FOLDER")
model = AutoModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER", dtype="auto")
```

{prompts}
"""
IN_TEMPLATE = "The tokenizer carries the prompt format of the training as its chat template: `apply_chat_template`."
AS_TEXT = "It was trained to go on from text as it stands: there is no chat template."


def card(config: RunConfig, adapter: Mapping[str, JsonValue], data: Mapping[str, JsonValue], *, template: bool) -> str:
    """The card. `adapter` are the facts of the adapter's manifest, `data` the figures of the prepared data set.

    Figures that are not there are left out.
    """
    rows = {**_data(config, data), **_training(config, adapter), "Merged weights": _merged(config)}
    table = "\n".join(f"| {name} | {_cell(text)} |" for name, text in rows.items() if text)
    base = card_base(config.model)
    return CARD.format(
        base_fields=f"{base}base_model_relation: finetune\n" if base else "",
        source=config.model.source,
        run=config.run,
        rows=table,
        prompts=IN_TEMPLATE if template else AS_TEXT,
    )


def _data(config: RunConfig, figures: Mapping[str, JsonValue]) -> dict[str, str]:
    dataset = config.dataset
    trained_on = "the answers" if dataset.train_on == "completion" else "all tokens"
    return {
        "Data": ", ".join(f"`{shown(source.uri)}`" for source in dataset.sources),
        "Records": _number(figures.get("records")),
        "Tokens of an epoch": _number(figures.get("tokens")),
        "Of them trained": _number(figures.get("trainedTokens")),
        "Trained on": trained_on,
        "Row": f"{dataset.sequence_length} tokens, packing {dataset.packing}",
    }


def _training(config: RunConfig, facts: Mapping[str, JsonValue]) -> dict[str, str]:
    lora, training = config.lora, config.training
    return {
        "LoRA": f"{lora.variant}, rank {lora.rank}, alpha {lora.alpha}, dropout {lora.dropout:g}",
        "Layers": ", ".join(f"`{name}`" for name in lora.target_modules),
        "Learning rate": f"{training.learning_rate:g}, {training.scheduler}, {training.warmup_steps} warm-up steps",
        "Rows a step": str(training.global_batch_size),
        "Seed": str(training.seed),
        "Steps": _number(facts.get("adapterStep", facts.get("step"))),
        "Training loss": str(facts.get("loss") or ""),
        "Validation loss": str(facts.get("evaluationLoss") or ""),
    }


def _merged(config: RunConfig) -> str:
    kept = "the base's element type" if config.merge.dtype == "auto" else config.merge.dtype
    return f"W + {config.lora.scale:g} · B · A in fp32, rounded once to {kept}"


def _number(value: JsonValue) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
