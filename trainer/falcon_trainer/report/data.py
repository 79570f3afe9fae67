"""What the page says of the data set, out of the prepared artefact."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falcon_trainer.artifacts import read_manifest

STATISTICS = "statistics.json"


@dataclass(frozen=True)
class Data:
    """Empty where the artefact cannot be read."""

    figures: dict[str, Any] = field(default_factory=dict)
    """As the status shows them."""
    invalid: dict[str, int] = field(default_factory=dict)
    """Records that could not be used, by what is wrong with them."""
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Tokens of each document."""


def read_data(folder: Path) -> Data:
    """The data set in `folder`."""
    manifest = read_manifest(folder)
    figures = manifest.facts.get("figures") if manifest else None
    return Data(figures if isinstance(figures, dict) else {}, _invalid(folder), _lengths(folder))


def _invalid(folder: Path) -> dict[str, int]:
    try:
        found = json.loads((folder / STATISTICS).read_text(encoding="utf-8")).get("invalid")
    except (OSError, ValueError):
        return {}
    return {str(kind): count for kind, count in found.items()} if isinstance(found, dict) else {}


def _lengths(folder: Path) -> NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from falcon_trainer.data.store import DOCUMENTS

    try:
        with pa.memory_map(str(folder / DOCUMENTS)) as file:
            column = pa.ipc.open_file(file).read_all().column("ids")
            lengths: NDArray[np.int64] = pc.list_value_length(column).to_numpy()
    except (OSError, pa.ArrowInvalid):
        return np.zeros(0, np.int64)
    return lengths
