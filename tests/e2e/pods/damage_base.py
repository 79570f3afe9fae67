"""Copies the base model with one weight that is no number: training on it must diverge. Argument: where to."""

import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

WEIGHT = "transformer.ln_f.weight"


def main(to: str) -> None:
    folder = Path(to)
    shutil.copytree("/inputs/base", folder)
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        if WEIGHT in tensors:
            tensors[WEIGHT].fill_(float("nan"))
            save_file(tensors, path, {"format": "pt"})
            print(json.dumps({"damaged": path.name}))
            return
    raise SystemExit(f"no file of {folder} holds {WEIGHT}")


if __name__ == "__main__":
    main(sys.argv[1])
