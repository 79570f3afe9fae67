"""What the page says of the data set, out of the prepared artefact."""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from falcon_trainer.artifacts import read_manifest
from falcon_trainer.data.contents import STATISTICS


@dataclass(frozen=True)
class Histogram:
    """counts[i] of what lies between edges[i] and edges[i + 1]."""

    edges: list[float]
    counts: list[int]

    @property
    def longer(self) -> bool:
        """Whether the last one holds what is longer than a row, and so is not as wide as the others."""
        widths = [end - start for start, end in pairwise(self.edges)]
        return abs(widths[-1] - widths[0]) > 1  # edges are whole numbers


@dataclass(frozen=True)
class Data:
    """Empty where the artefact cannot be read."""

    figures: dict[str, Any] = field(default_factory=dict)
    """As the status shows them."""
    invalid: dict[str, int] = field(default_factory=dict)
    """Records that could not be used, by what is wrong with them."""
    lengths: Histogram | None = None
    """Records by their number of tokens."""
    quantiles: dict[str, int] = field(default_factory=dict)
    """Tokens of a record, by the share of records that have no more."""


def read_data(folder: Path) -> Data:
    """The data set in `folder`; what falcon_trainer.data.statistics wrote, and what of it can be read."""
    manifest = read_manifest(folder)
    figures = _fields(manifest.facts.get("figures") if manifest else None)
    statistics = _statistics(folder)
    lengths = _fields(statistics.get("lengths"))
    histogram = Histogram(lengths["edges"], lengths["counts"]) if lengths.get("counts") else None
    return Data(figures, _fields(statistics.get("invalidKinds")), histogram, _fields(lengths.get("quantiles")))


def _statistics(folder: Path) -> dict[str, Any]:
    try:
        return _fields(json.loads((folder / STATISTICS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
