"""The finished adapter: written in PEFT's format, checked, published under its digest, found again."""

import json
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer.artifacts import Manifest, draft_beside, problem, publish, read_manifest
from falcon_trainer.config import Lora, Model
from falcon_trainer.data.tokenization import load_tokenizer, stored_template, travelling
from falcon_trainer.layout import RunLayout
from falcon_trainer.model.lora import ADAPTER_FILE, check_adapter, lora_config, saved_name
from falcon_trainer.model.shapes import adapter_shapes, base_shapes, falcon_config
from falcon_trainer.model.source import card_base, model_folder, published_name
from falcon_trainer.train.partitions import MASTER

KIND = "adapter"

CARD = """\
---
library_name: peft
{base}---
# {run}

LoRA adapter for `{source}`, {trained}. {prompts}

```python
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")
```
"""

IN_TEMPLATE = "The tokenizer beside it carries the prompt\nformat as its chat template."
AS_TEXT = "It goes on from text as it stands: there is\nno chat template."


def finished(layout: RunLayout, identity: str) -> tuple[Path, Manifest] | None:
    """An adapter of this identity that an earlier attempt finished; of two, always the same one."""
    for folder in sorted(layout.adapter("x").parent.glob("*")):
        manifest = read_manifest(folder)
        if manifest and manifest.kind == KIND and manifest.facts.get("identity") == identity:
            if wrong := problem(folder, manifest, contents=False):
                print(f"Passing over a damaged adapter: {wrong}.", flush=True)
                continue
            return folder, manifest
    return None


def save_adapter(
    layout: RunLayout, model: Model, lora: Lora, tensors: dict[str, Any], facts: dict[str, JsonValue]
) -> tuple[Path, Manifest]:
    """Writes, checks and publishes the adapter. `tensors` are what `partitions.gather` gave for the master weights.

    Raises StageError(DATA) where it must not count.
    """
    from safetensors.torch import save_file

    base = model_folder(model, layout.workspace)
    draft = draft_beside(layout.adapter("adapter"))
    named = {saved_name(name.removesuffix(f".{MASTER}")): tensor for name, tensor in tensors.items()}
    save_file(named, str(draft / ADAPTER_FILE), metadata={"format": "pt"})
    _write_config(draft, lora, published_name(model, layout.workspace))
    template = stored_template(layout.data)
    travelling(load_tokenizer(base), template).save_pretrained(str(draft))
    text = card(model, layout.run, facts, template=template is not None)
    (draft / "README.md").write_text(text, encoding="utf-8")
    expected = adapter_shapes(base_shapes(falcon_config(base)), lora)
    check_adapter(draft / ADAPTER_FILE, expected, trained=bool(facts["step"]))
    return publish(draft, layout.adapter, kind=KIND, facts=facts)


def card(model: Model, run: str, facts: dict[str, JsonValue], *, template: bool) -> str:
    """README.md of the adapter."""
    prompts = IN_TEMPLATE if template else AS_TEXT
    return CARD.format(base=card_base(model), source=model.source, run=run, trained=_trained(facts), prompts=prompts)


def _trained(facts: dict[str, JsonValue]) -> str:
    if "adapterStep" not in facts:
        return f"trained for {facts['step']} steps to a loss of {facts['loss']}"
    best = f" (of {facts['step']})" if facts["adapterStep"] != facts["step"] else ""
    return (
        f"trained for {facts['adapterStep']} steps{best} to a loss of {facts['evaluationLoss']} on validation records"
    )


def _write_config(draft: Path, lora: Lora, base_name: str) -> None:
    config = lora_config(lora, base_name)
    config.inference_mode = True
    config.save_pretrained(str(draft))
    path = draft / "adapter_config.json"
    fields = json.loads(path.read_text())
    fields["target_modules"] = sorted(fields["target_modules"])  # PEFT keeps a set, whose order changes by process
    path.write_text(json.dumps(fields, indent=2, sort_keys=True))
