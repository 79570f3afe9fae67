"""What of a run may change, and until when: transition rules of the CRD, judged by the API server."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.cluster.kubectl import Kubectl
from tests.integration.applying import apply, in_namespace, refusal, restricted_namespace, set_status
from tests.unit.operator.api.runs import resource

FIXED: dict[str, tuple[Mapping[str, Any], str]] = {
    "the model": ({"model": {"source": "pvc://inputs/other"}}, "spec.model"),
    "an optional part of the model": ({"model": {"revision": "main"}}, "spec.model"),
    "the records": ({"dataset": {"sources": [{"uri": "pvc://inputs/others.jsonl"}]}}, "spec.dataset"),
    "one more source": (
        {"dataset": {"sources": [{"uri": "pvc://inputs/records.jsonl"}, {"uri": "pvc://inputs/more.jsonl"}]}},
        "spec.dataset",
    ),
    "the adapter": ({"lora": {"rank": 8}}, "spec.lora"),
    "the training": ({"training": {"learningRate": "2e-4"}}, "spec.training"),
    "an optional part of the training": ({"training": {"maxSteps": 5}}, "spec.training"),
    "the workspace": ({"workspace": {"size": "4Gi"}}, "spec.workspace"),
}
FREE: dict[str, Mapping[str, Any]] = {
    "the gang": {"gang": {"maxRestarts": 9}},
    "the server's GPUs": {"serve": {"gpus": 1}},
    "pod templates": {"podTemplate": {"train": {"nodeSelector": {"pool": "gpu"}}}},
    "whether it is served": {"serve": {"enabled": False}},
    "the merged model's type": {"merge": {"dtype": "float32"}},
    "what is published": {"publish": [{"uri": "hf://acme/support-bot"}]},
}


@pytest.fixture(scope="module")
def shared(kubectl: Kubectl) -> Iterator[str]:
    """Namespace of a run `fresh`, and of a run `run` that the operator has accepted; the tests change neither."""
    with restricted_namespace(kubectl) as namespace:
        for name in ("fresh", "run"):
            apply(kubectl, in_namespace(resource(name), namespace))
        set_status(kubectl, namespace, "run", {"acceptedSpecHash": "0123456789abcdef"})
        yield namespace


@pytest.mark.parametrize("name", FIXED)
def test_once_accepted_it_cannot_change(kubectl: Kubectl, shared: str, name: str) -> None:
    changes, path = FIXED[name]
    said = refusal(kubectl, in_namespace(resource("run", **changes), shared))
    assert f"{path}: " in said
    assert "cannot change once the run is accepted: create a new FalconFineTune" in said


@pytest.mark.parametrize("name", FIXED)
def test_before_it_is_accepted_it_may_change(kubectl: Kubectl, shared: str, name: str) -> None:
    apply(kubectl, in_namespace(resource("fresh", **FIXED[name][0]), shared), "--dry-run=server")


@pytest.mark.parametrize("name", FREE)
def test_once_accepted_it_may_still_change(kubectl: Kubectl, shared: str, name: str) -> None:
    apply(kubectl, in_namespace(resource("run", **FREE[name]), shared), "--dry-run=server")


def test_an_optional_part_cannot_be_taken_away_either(kubectl: Kubectl, shared: str) -> None:
    before = in_namespace(resource("optional", training={"maxSteps": 5}), shared)
    apply(kubectl, before)
    set_status(kubectl, shared, "optional", {"acceptedSpecHash": "0123456789abcdef"})
    assert "spec.training: " in refusal(kubectl, in_namespace(resource("optional"), shared))


def test_a_volume_of_one_node_keeps_its_run_on_one_node(kubectl: Kubectl, shared: str) -> None:
    said = refusal(kubectl, in_namespace(resource("run", gang={"nodes": 2}), shared))
    assert "the workspace was created for one node" in said
    said = refusal(kubectl, in_namespace(resource("run", serve={"replicas": 2}), shared))
    assert "workspace.accessMode ReadWriteMany" in said
