"""Mounts of a publish pod in a folder of the test."""

from pathlib import Path

import pytest

from falcon_trainer import layout
from tests.unit.trainer.publish.parcels import Results


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    found = Results(tmp_path)
    monkeypatch.setattr(layout, "PUBLISHED", found.published)
    monkeypatch.setattr(layout, "PUBLISH_SECRETS", found.secrets)
    found.published.mkdir()
    return found
