"""SHA-256 of the adapter's tensors of each run on one workspace. Arguments: workspace, run…"""

import hashlib
import json
import sys
from pathlib import Path


def digest(adapters: Path) -> str:
    """Of the one adapter that a run published; a second one with other bytes would be an answer nobody can trust."""
    found = {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(adapters.glob("*/adapter_model.safetensors"))
    }
    if len(found) != 1:
        raise SystemExit(f"{adapters} holds {len(found)} different adapters")
    return found.pop()


def main(workspace: str, *runs: str) -> None:
    print(json.dumps({run: digest(Path(workspace) / "runs" / run / "adapter") for run in runs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
