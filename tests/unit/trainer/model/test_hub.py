"""Models of the Hub."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from falcon_trainer import layout as layouts
from falcon_trainer.artifacts import read_manifest
from falcon_trainer.data.prepare import prepare
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.hub_server import COMMIT, Hub, serving
from tests.unit.trainer.workshop import RECORDS, Workshop

NAME = "tiiuae/falcon-tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    model = Workshop(tmp_path).put_base()
    (model / "pytorch_model.bin").write_bytes(b"never fetched")
    with serving(Hub(NAME, model)) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setattr(layouts, "SOURCES", tmp_path / "sources")
        yield served


def shop_of(tmp_path: Path, run: str = "tiny") -> Workshop:
    shop = Workshop(tmp_path, run)
    shop.put_records(RECORDS.read_text())
    return shop


def run(shop: Workshop, **model: str) -> dict[str, Any]:
    config = shop.config(model={"source": f"hf://{NAME}"} | model)
    return prepare(config, shop.beats("prepare"), shop.layout)


def test_a_model_is_fetched_once_for_all_runs_of_a_workspace(hub: Hub, tmp_path: Path) -> None:
    result = run(shop_of(tmp_path))
    assert result["model"]["commit"] == COMMIT
    folder = tmp_path / "workspace" / "models" / "tiiuae--falcon-tiny@main"
    manifest = read_manifest(folder)
    assert manifest
    assert manifest.facts == {"name": NAME, "revision": "main", "commit": COMMIT}
    assert "model.safetensors" in manifest.files
    assert not [name for name in manifest.files if name.endswith(".bin")]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    hub.refusal = (503, "")
    other = run(shop_of(tmp_path, run="other"))
    assert other["model"] == result["model"]


def test_small_files_come_first_and_weights_only_after_the_records_are_checked(hub: Hub, tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    shop.put_records(RECORDS.read_text() + json.dumps({"instruction": "x", "response": "long " * 500}))
    config = shop.config(model={"source": f"hf://{NAME}"}, dataset={"tooLong": "fail"})
    with pytest.raises(StageError) as caught:
        prepare(config, shop.beats("prepare"), shop.layout)
    assert caught.value.reason == "RecordTooLong"
    assert any(path.endswith("tokenizer.json") for path in hub.asked)
    assert not any(path.endswith(".safetensors") for path in hub.asked)


def test_a_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.broken = "model.safetensors"
    with pytest.raises(StageError) as caught:
        run(shop_of(tmp_path))
    assert caught.value.code == ExitCode.UNAVAILABLE
    hub.broken, before = "", len(hub.asked)
    run(shop_of(tmp_path))
    assert not [path for path in hub.asked[before:] if path.endswith("tokenizer.json")]


def test_a_model_that_cannot_be_used_is_not_kept_for_other_runs(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(StageError) as caught:
        run(shop_of(tmp_path))
    assert caught.value.reason == "ModelNotUsable"
    assert not (tmp_path / "workspace" / "models" / "tiiuae--falcon-tiny@main").exists()


def test_a_gated_model_is_fetched_with_the_token_of_the_mounted_file(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    (tmp_path / "token").write_text("hf_secret\n")
    monkeypatch.setattr(layouts, "TOKEN", tmp_path / "token")
    assert run(shop_of(tmp_path))["model"]["commit"] == COMMIT


@pytest.mark.parametrize(
    ("refusal", "code", "reason", "said"),
    [
        pytest.param((403, "GatedRepo"), ExitCode.NO_PERMISSION, "ModelGated", "accept its terms", id="gated"),
        pytest.param((404, "RepoNotFound"), ExitCode.NO_INPUT, "ModelNotFound", "check model.source", id="unknown"),
        pytest.param((401, ""), ExitCode.NO_PERMISSION, "TokenRefused", "tokenSecretRef", id="a token refused"),
        pytest.param((500, ""), ExitCode.UNAVAILABLE, "HubUnavailable", "HTTP 500", id="a broken Hub"),
    ],
)
def test_refusals_of_the_hub_say_what_to_do(
    hub: Hub, tmp_path: Path, refusal: tuple[int, str], code: ExitCode, reason: str, said: str
) -> None:
    hub.refusal = refusal
    with pytest.raises(StageError) as caught:
        run(shop_of(tmp_path))
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert said in caught.value.message
    assert NAME in caught.value.message


def test_an_unknown_revision_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        run(shop_of(tmp_path), revision="v9")
    assert (caught.value.code, caught.value.reason) == (ExitCode.NO_INPUT, "ModelNotFound")
    assert "no revision v9" in caught.value.message


def test_a_hub_that_cannot_be_reached_is_tried_again(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StageError) as caught:
        run(shop_of(tmp_path))
    assert caught.value.code == ExitCode.UNAVAILABLE
    assert caught.value.outcome().retryable
    assert "put the model on a claim" in caught.value.message


def test_a_workspace_that_is_too_small_says_how_much_is_needed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("falcon_trainer.model.hub.shutil.disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StageError) as caught:
        run(shop_of(tmp_path))
    assert (caught.value.code, caught.value.reason) == (ExitCode.CANNOT_WRITE, "WorkspaceTooSmall")
    assert "need 0.0 GB" in caught.value.message
