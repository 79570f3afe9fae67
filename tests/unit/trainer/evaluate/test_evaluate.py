"""The evaluate stage: what it asks, how long it waits, what it reports and what it leaves alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from falcon_trainer.beats import Beats
from falcon_trainer.config import RunConfig
from falcon_trainer.data.contents import PROMPTS
from falcon_trainer.evaluate import endpoint as endpoints
from falcon_trainer.evaluate.stage import evaluate
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.report.drawing import Drawing
from falcon_trainer.report.page import PAGE
from falcon_trainer.report.samples import NEW_TOKENS, Sample, Samples, read_samples
from tests.unit.trainer.evaluate.openai_endpoint import endpoint, refused, said
from tests.unit.trainer.launcher_pod import CONFIG, free_port

DIGEST = "sha256:" + "a" * 64
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
PROMPT = "### Instruction\nWhy is the sky blue?\n\n### Answer\n"
CHAT = {"prompt": PROMPT, "answer": "Scattering.", "message": MESSAGES[0]["content"], "messages": MESSAGES}
TEXT = {"prompt": "Once upon", "answer": " a time", "message": None, "messages": None}
DRAW = Drawing.finish


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds, and waiting too."""
    monkeypatch.setattr(Drawing, "finish", lambda self: None)
    monkeypatch.setattr(endpoints, "PAUSE_SECONDS", 0.01)
    monkeypatch.delenv("FALCON_API_KEY", raising=False)


def prepared(workspace: Path, records: list[dict[str, Any]], samples: list[Sample] | None = None) -> RunLayout:
    """A run whose prompts are stored; `samples` are what its training kept of them."""
    layout = RunLayout("tiny", workspace)
    layout.data.mkdir(parents=True)
    (layout.data / PROMPTS).write_text(json.dumps(records))
    if samples is not None:
        Samples(samples=samples, notes=["One note."]).write(layout.report)
    return layout


def evaluated(layout: RunLayout, url: str, *, patience: float = 60) -> dict[str, Any]:
    """The result of the stage, in the form of the status."""
    merged = {"path": "runs/tiny/merged/x", "digest": DIGEST, "bytes": 1}
    config = RunConfig.model_validate(CONFIG | {"merged": merged, "endpoint": url})
    beats = Beats("evaluate", directory=layout.workspace / "runtime")
    result: Any = evaluate(config, beats, layout, patience=patience)["evaluation"]
    return dict(result)


def kept(layout: RunLayout) -> Samples:
    found = read_samples(layout.report)
    assert found
    return found


def test_each_prompt_is_asked_as_a_client_asks_and_shown_beside_the_bases_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Drawing, "finish", DRAW)
    asked = [
        Sample(prompt=PROMPT, expected="Scattering.", before="The sky is …", after="Scattering."),
        Sample(prompt="Once upon", expected=" a time", before=" a hill"),
    ]
    layout = prepared(tmp_path, [TEXT, CHAT], asked)
    with endpoint(said(" Scattering.", chat=True), said(" a hill", "length")) as served:
        result = evaluated(layout, served.url)
    greedy = {"model": "tiny", "max_tokens": NEW_TOKENS, "temperature": 0}
    assert served.asked == [
        ("/v1/chat/completions", None, greedy | {"messages": MESSAGES}),
        ("/v1/completions", None, greedy | {"prompt": "Once upon"}),
    ]
    assert result == {
        **{"merged": DIGEST, "prompts": 2, "answered": 2, "changed": 1},
        "message": '"Why is the sky blue?" is answered with "Scattering.", by the base with "The sky is …".',
    }
    assert [sample.served for sample in kept(layout).samples] == [" Scattering.", " a hill …"]
    assert [sample.before for sample in kept(layout).samples] == ["The sky is …", " a hill"]
    page = (layout.report / PAGE).read_text()
    assert page.count("As served") == 3  # a heading for each answer, and where they come from
    assert DIGEST in page


def test_prompts_that_the_training_did_not_ask_are_asked_all_the_same(tmp_path: Path) -> None:
    layout = prepared(tmp_path, [CHAT])
    with endpoint(said("Scattering.", chat=True)) as served:
        result = evaluated(layout, served.url)
    assert (result["prompts"], result["answered"], result["changed"]) == (1, 1, 0)
    assert result["message"] == '"Why is the sky blue?" is answered with "Scattering."; the base was not asked.'


def test_the_token_of_the_pod_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALCON_API_KEY", "sk-1\n")
    with endpoint(said("x")) as served:
        evaluated(prepared(tmp_path, [TEXT]), served.url)
    assert served.asked[0][1] == "Bearer sk-1"


@pytest.mark.parametrize("status", [404, 408, 429, 500, 502, 503])
def test_what_passes_is_waited_for(tmp_path: Path, status: int) -> None:
    with endpoint(refused(status, "not yet"), (status, "<html>"), said(" a time")) as served:
        assert evaluated(prepared(tmp_path, [TEXT]), served.url)["answered"] == 1
    assert len(served.asked) == 3


@pytest.mark.parametrize("answers", [False, True], ids=["nobody listens", "it never answers right"])
def test_an_endpoint_that_cannot_be_asked_ends_the_stage_and_leaves_the_report_alone(
    tmp_path: Path, answers: bool
) -> None:
    layout = prepared(tmp_path, [CHAT, TEXT], [Sample(prompt=PROMPT, expected="x", before="y")])
    before = kept(layout)
    with endpoint(refused(503, "the model is being loaded")) as served:
        url = served.url if answers else f"http://127.0.0.1:{free_port()}/v1"
        with pytest.raises(StageError, match="gave no answer within 0 s; the last try: ") as caught:
            evaluated(layout, url, patience=0.05)
    assert (caught.value.code, caught.value.reason) == (ExitCode.UNAVAILABLE, "EndpointUnavailable")
    assert ("the model is being loaded" if answers else "ConnectError") in caught.value.message
    assert kept(layout) == before


def test_a_token_that_is_refused_is_not_tried_again(tmp_path: Path) -> None:
    refusal = pytest.raises(StageError, match=r"serve\.apiKeySecretRef \(status 401: The API key is wrong")
    with endpoint(refused(401, "The API key is wrong.")) as served, refusal as caught:
        evaluated(prepared(tmp_path, [TEXT]), served.url)
    assert caught.value.code == ExitCode.NO_PERMISSION
    assert len(served.asked) == 1


@pytest.mark.parametrize("answer", [refused(400, "too long"), (200, {"choices": []}), (200, "<html>"), (200, [])])
def test_a_prompt_that_is_refused_is_said_and_the_others_count(tmp_path: Path, answer: Any) -> None:
    layout = prepared(tmp_path, [CHAT, TEXT])
    with endpoint(answer, said(" a time")) as served:
        result = evaluated(layout, served.url)
    assert (result["prompts"], result["answered"]) == (2, 1)
    assert kept(layout).samples[0].served is None
    assert "The served model did not answer every prompt" in kept(layout).notes[-1]
    with endpoint(said("Scattering.", chat=True)) as served:
        assert evaluated(layout, served.url)["answered"] == 2
    assert kept(layout).notes == []


def test_where_every_prompt_is_refused_the_status_says_so(tmp_path: Path) -> None:
    with endpoint(refused(400, "no")) as served:
        result = evaluated(prepared(tmp_path, [CHAT, TEXT]), served.url)
    assert (result["prompts"], result["answered"]) == (2, 0)
    assert result["message"] == "The endpoint refused every stored prompt; the report says why."


def test_a_workspace_without_prompts_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"prompts\.json cannot be read \(No such file") as caught:
        evaluated(RunLayout("tiny", tmp_path), "http://127.0.0.1:1/v1")
    assert caught.value.code == ExitCode.NO_INPUT


def test_without_a_model_or_an_endpoint_there_is_nothing_to_evaluate(tmp_path: Path) -> None:
    beats = Beats("evaluate", directory=tmp_path)
    with pytest.raises(StageError, match="names no merged model, or no endpoint"):
        evaluate(RunConfig.model_validate(CONFIG), beats, RunLayout("tiny", tmp_path))


def test_the_stage_needs_neither_torch_nor_transformers() -> None:
    check = (
        "import falcon_trainer.evaluate.stage, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)
