"""Looks at what a run left on its workspace, with stock PEFT and transformers only.

Arguments: workspace, adapter folder, merged folder (both relative to it), base model folder, run.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def adapter_tensors(adapter: Path) -> list[dict[str, object]]:
    """Name, shape and soundness of each tensor of the adapter."""
    return [
        {
            "name": name,
            "dimensions": tensor.dim(),
            "elements": tensor.numel(),
            "finite": bool(torch.isfinite(tensor).all()),
            "zero": not bool(tensor.any()),
        }
        for name, tensor in load_file(adapter / "adapter_model.safetensors").items()
    ]


def logit_difference(base: Path, adapter: Path, merged: Path, prompt: str) -> float:
    """Largest difference of merged and base + adapter, relative to the largest logit, in fp32."""
    tokenizer = AutoTokenizer.from_pretrained(merged)
    ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        ours = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(**ids).logits
        stock = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))
        theirs = stock(**ids).logits
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main(workspace: str, adapter: str, merged: str, base: str, run: str) -> None:
    root, report = Path(workspace), Path(workspace) / "runs" / run / "report"
    told = [json.loads(line) for line in (report / "metrics.jsonl").read_text().splitlines()]
    metrics = [line for line in told if "loss" in line]  # evaluations have lines of their own
    found = {
        "tensors": adapter_tensors(root / adapter),
        "loads": [json.loads(path.read_text()) for path in sorted(report.glob("load-*.json"))],
        "steps": [line["step"] for line in metrics],
        "losses": [line["loss"] for line in metrics],
        "logit_difference": logit_difference(
            Path(base), root / adapter, root / merged, "### Instruction\nWhat is a falcon?\n\n### Answer\n"
        ),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:6])
