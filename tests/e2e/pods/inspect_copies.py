"""Whether stock transformers and safetensors read the copies of a run's results. Argument: the claim's folder."""

import json
import sys
from pathlib import Path

from safetensors import safe_open
from transformers import AutoModelForCausalLM


def main(shelf: str) -> None:
    folder = Path(shelf)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", local_files_only=True)
    with safe_open(folder / "adapter" / "adapter_model.safetensors", "pt") as adapter:
        tensors = list(adapter.keys())
    print(json.dumps({"model": model.num_parameters() > 0, "adapter": len(tensors) > 0}))


if __name__ == "__main__":
    main(sys.argv[1])
