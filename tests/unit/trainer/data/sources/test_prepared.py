"""The prepare stage on records that it fetches."""

from pathlib import Path

import pytest

from falcon_trainer import layout
from falcon_trainer.data.prepare import prepare
from falcon_trainer.data.store import PackedRows
from tests.unit.trainer.data.sources.files import write
from tests.unit.trainer.data.sources.web_server import Site, serving
from tests.unit.trainer.workshop import Workshop, records


def test_a_run_on_the_web_is_prepared_once_and_then_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Workshop(tmp_path)
    shop.put_base()
    monkeypatch.setattr(layout, "SOURCES", shop.sources)
    packed = write(records(), tmp_path, "CSV", ".zst")
    with serving(Site(packed.read_bytes()), tmp_path / "authority") as site:
        monkeypatch.setenv("SSL_CERT_FILE", str(site.authority))
        sources = [{"uri": f"{site.url}/train.csv.zst"}]
        config = shop.config(dataset={"sources": sources, "sequenceLength": 96, "validation": {"fraction": "0.25"}})
        first = prepare(config, shop.beats("prepare"), shop.layout)
        assert len(site.asked) == 1
    assert prepare(config, shop.beats("prepare"), shop.layout) == first
    assert len(PackedRows(shop.layout.data)) == first["dataset"]["sequences"]  # type: ignore[index, call-overload]
    assert first["dataset"]["records"] == len(records())  # type: ignore[index, call-overload]
