"""The serve stage's life: start, stop, and what ends it."""

import json
import os
import re
import signal
from pathlib import Path

import httpx
import pytest

from falcon_trainer.config import Artifact, RunConfig
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.serve.model import checked_folder
from falcon_trainer.serve.stage import Told
from tests.unit.trainer.launcher_pod import CONFIG, eventually
from tests.unit.trainer.serve_process import POSITIONS, RUN, merged_model, served


def test_while_the_model_is_loaded_the_server_is_alive_but_not_ready_and_ends_with_its_engine(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        eventually(lambda: server.status("/health") == 200, "the layer listens", 60)
        assert server.get("/ready") == (503, '{"status":"unready","reason":"the model is being loaded"}')
        body = {"model": RUN, "messages": [{"role": "user", "content": "x"}]}
        early = httpx.post(f"{server.url}/v1/chat/completions", json=body)
        assert (early.status_code, early.json()["error"]["code"]) == (503, "model_not_ready")
        assert early.headers["Retry-After"]
        os.kill(server.engine(), signal.SIGKILL)
        assert server.process.wait(60) == 70
        outcome = server.ending().outcome
        assert (outcome.reason, outcome.retryable) == ("EngineEnded", True)
        assert "while it loaded the model with signal 9" in outcome.message


def artifact(**changes: object) -> Artifact:
    return Artifact.model_validate(merged_model()[1] | changes)


@pytest.mark.parametrize(
    ("told", "reason"),
    {
        "no merged model was told": (None, "InvalidConfiguration"),
        "the folder is gone": (artifact(path="runs/tiny-run/merged/gone"), "ModelNotFound"),
        "the folder holds another model": (artifact(digest="sha256:" + "0" * 64), "ModelChanged"),
    }.values(),
)
def test_a_model_that_is_not_the_one_that_was_accepted_is_not_served(told: Artifact | None, reason: str) -> None:
    with pytest.raises(StageError) as caught:
        checked_folder(merged_model()[0], told)
    assert caught.value.reason == reason


def test_a_file_that_was_cut_is_found_before_the_engine_starts(tmp_path: Path) -> None:
    import shutil

    workspace, merged = merged_model()
    shutil.copytree(workspace / merged["path"], tmp_path / merged["path"])
    weights = tmp_path / merged["path"] / "model.safetensors"
    weights.parent.chmod(0o755)
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(StageError, match=r"model\.safetensors has \d+ bytes instead of \d+"):
        checked_folder(tmp_path, Artifact.model_validate(merged))
    assert json.loads((weights.parent / "config.json").read_text())["model_type"] == "falcon"


@pytest.mark.parametrize(
    ("serve_settings", "key", "said"),
    {
        "an argument that nobody knows": ({"args": ["--swap"]}, None, "serve.args: unrecognized arguments: --swap"),
        "more positions than the model has": ({"maxModelLength": POSITIONS + 1}, None, "the model has 4096 positions"),
        "an empty token": ({}, " \n", "serve.apiKeySecretRef is empty"),
    }.values(),
)
def test_settings_that_cannot_be_obeyed_end_the_stage_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, serve_settings: dict[str, object], key: str | None, said: str
) -> None:
    if key is not None:
        monkeypatch.setenv("FALCON_API_KEY", key)
    workspace, merged = merged_model()
    config = RunConfig.model_validate(CONFIG | {"run": RUN, "merged": merged, "serve": serve_settings})
    with pytest.raises(StageError, match=re.escape(said)) as caught:
        Told.of(config, RunLayout(RUN, workspace)).model()
    assert caught.value.code == ExitCode.CONFIGURATION
