"""The serve stage's life: start, stop, and what ends it."""

import json
import os
import signal
import threading
from pathlib import Path

import httpx
import pytest

from falcon_trainer.config import Artifact
from falcon_trainer.outcome import StageError
from falcon_trainer.serve.model import checked_folder
from tests.unit.trainer.launcher_pod import eventually
from tests.unit.trainer.serve_process import RUN, merged_model, served


def test_sigterm_finishes_what_is_under_way_and_then_ends_as_stopped(tmp_path: Path) -> None:
    with served(tmp_path, FALCON_GRACE_SECONDS="60", FALCON_LINGER_SECONDS="2") as server:
        server.until_ready()
        body = {"model": RUN, "prompt": "Give", "max_tokens": 1000, "temperature": 0}
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.post(f"{server.url}/v1/completions", json=body, timeout=120))

        long = threading.Thread(target=ask)
        long.start()
        eventually(lambda: server.metric("falcon_serve_in_flight") == 1, "the answer is under way")
        engine = server.engine()
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.status("/ready") == 503, "readiness ends first")
        assert server.status("/health") == 200
        assert server.process.wait(60) == 143
        long.join(10)
        assert answers[0].json()["usage"]["completion_tokens"] == 1000
        assert server.ending().outcome.reason == "Stopped"
        assert not Path(f"/proc/{engine}").exists()


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
