"""Exit codes of ranks as their torchrun saw them: the only trace of a rank that was killed."""

import json
from collections.abc import Mapping
from pathlib import Path

from falcon_trainer.layout import RUNTIME

NAME = "deaths.json"


def write_deaths(deaths: Mapping[int, int], directory: Path = RUNTIME) -> None:
    """Writes rank → exit code (negative: the signal)."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NAME).write_text(json.dumps(deaths))


def read_deaths(directory: Path = RUNTIME) -> dict[int, int]:
    """Rank → exit code; empty where torchrun left nothing."""
    try:
        return {int(rank): int(code) for rank, code in json.loads((directory / NAME).read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
