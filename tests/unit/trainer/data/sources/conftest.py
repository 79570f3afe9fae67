"""Mounts and downloads of a run; patience that does not wait."""

from pathlib import Path

import pytest

from falcon_trainer import layout
from tests.unit.trainer.data.sources.runs import Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(layout, "SOURCES", tmp_path / "mounts")
    monkeypatch.setattr("falcon_trainer.data.sources.fetching.PAUSES", (0.0,))
    (tmp_path / "mounts").mkdir()
    return Run(tmp_path / "mounts", tmp_path / "workspace" / "runs" / "r" / "sources")
