"""Chats from a ConfigMap, some of them held out; a second run goes on from the first one's adapter."""

import base64
import gzip
import json
from typing import Any

import pytest

from examples.demo.inputs import demo_records
from examples.demo.kube import Kubectl, Manifest
from tests.e2e.inside import run_inside
from tests.e2e.runs import ADAPTER_ONLY, merged, run_named, wait_true

FIRST, SECOND = "chats", "chats-again"
CHATS = 24
EVERY = 5
SPEC: dict[str, Any] = {
    "dataset": {
        "sources": [{"uri": "configmap://chats/chats.jsonl.gz"}],
        "format": "auto",
        "sequenceLength": 128,
        "tooLong": "skip",
        "validation": {"fraction": "0.25"},
    },
    "training": {
        "maxSteps": 20,
        "activationCheckpointing": "selective",
        "selectiveLayers": 2,
        "dataLoaderWorkers": 1,
        "checkpoint": {"everySteps": EVERY},
        "evaluation": {"everySteps": EVERY},
        "earlyStopping": {"patience": 3},
    },
}


def chats() -> str:
    """Conversations of two turns in OpenAI's form, made of the demo's records."""
    records = demo_records()
    lines = []
    for number in range(CHATS):
        turns = [records[number % len(records)], records[(number * 3 + 1) % len(records)]]
        messages = [{"role": "system", "content": f"You answer the questions of visitor {number}."}]
        for turn in turns:
            messages.append({"role": "user", "content": turn["instruction"]})
            messages.append({"role": "assistant", "content": turn["response"]})
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def config_map() -> Manifest:
    data = base64.b64encode(gzip.compress(chats().encode(), mtime=0)).decode()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "chats"},
        "binaryData": {"chats.jsonl.gz": data},
    }


@pytest.fixture(scope="module")
def trained(kubectl: Kubectl) -> dict[str, Any]:
    """The status of the first run, once it has its adapter."""
    kubectl.apply(config_map(), run_named(FIRST, **merged(SPEC, ADAPTER_ONLY)))
    return wait_true(kubectl, FIRST, "Trained")


@pytest.fixture(scope="module")
def reported(kubectl: Kubectl, trained: dict[str, Any]) -> dict[str, Any]:
    """What lies in the first run's report."""
    return run_inside(kubectl, "inspect_report.py", "/workspace", FIRST, claims={"/workspace": f"{FIRST}-workspace"})


@pytest.fixture(scope="module")
def continued(kubectl: Kubectl, trained: dict[str, Any]) -> dict[str, Any]:
    """What lies in the report of a second run, which starts from the first one's adapter."""
    source = f"pvc://{FIRST}-workspace/{trained['adapter']['path']}"
    changes = merged(SPEC, {"lora": {"initialAdapter": source}, "training": {"maxSteps": 2}})
    kubectl.apply(run_named(SECOND, **merged(changes, ADAPTER_ONLY)))
    wait_true(kubectl, SECOND, "Trained")
    return run_inside(kubectl, "inspect_report.py", "/workspace", SECOND, claims={"/workspace": f"{SECOND}-workspace"})


def test_the_status_says_what_the_records_became(trained: dict[str, Any]) -> None:
    dataset = trained["dataset"]
    assert (dataset["format"], dataset["records"]) == ("chat", CHATS)
    assert 0 < dataset["validation"]["records"] < CHATS
    assert dataset["trainedTokens"] < dataset["tokens"]
    assert dataset["longestDocument"] <= SPEC["dataset"]["sequenceLength"]


def test_the_prepare_pods_log_shows_samples(kubectl: Kubectl, trained: dict[str, Any]) -> None:
    log = kubectl("logs", f"job/{FIRST}-prepare")
    assert "### Instruction" in log
    assert "chat" in log


def test_the_validation_loss_is_shown_and_falls(trained: dict[str, Any], reported: dict[str, Any]) -> None:
    measured = [line["evaluationLoss"] for line in reported["evaluations"]]
    assert len(measured) >= 2
    assert min(measured) < measured[0]
    assert float(trained["training"]["evaluationLoss"]) == pytest.approx(min(measured), rel=1e-3)
    best = min(reported["evaluations"], key=lambda line: line["evaluationLoss"])
    assert trained["training"]["bestStep"] == best["step"]


def test_the_report_is_whole(reported: dict[str, Any]) -> None:
    assert {"step", "loss", "learningRate", "gradientNorm", "tokensPerSecond", "mfu", "hfu", "memoryBytes"} <= set(
        reported["steps"][0]
    )
    assert reported["files"]["loss.png"] > 1000
    assert reported["files"]["index.html"] > 1000
    assert reported["external"] == [], "the page asks for something from elsewhere"
    assert any(name.startswith("tensorboard/") for name in reported["files"])


def test_a_second_run_goes_on_from_the_first_ones_adapter(reported: dict[str, Any], continued: dict[str, Any]) -> None:
    assert continued["steps"][0]["loss"] < 0.8 * reported["steps"][0]["loss"]
