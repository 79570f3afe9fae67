"""The API server's own validation: what is refused, where, and with which words."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from falcon_operator.api.resource import FalconFineTune
from tests.cluster.kubectl import Kubectl
from tests.integration.applying import apply, in_namespace, refusal, set_status
from tests.integration.conftest import REPOSITORY
from tests.unit.operator.api.runs import laid_over, resource

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
OWN_CLAIM = {"size": None, "claimName": "mine"}


Case = tuple[Mapping[str, Any], str, str]
REFUSED: dict[str, Case] = {
    "a wrong type": ({"gang": {"nodes": "2"}}, "spec.gang.nodes", "must be of type integer"),
    "a number where a string is due": ({"training": {"learningRate": 0.1}}, "spec.training.learningRate", "string"),
    "an unknown field": ({"lerningRate": "1"}, 'unknown field "spec.lerningRate"', ""),
    "an unknown field deep down": (
        {"podTemplate": {"train": {"tolerations": [{"key": "a", "efect": "NoSchedule"}]}}},
        'unknown field "spec.podTemplate.train.tolerations[0].efect"',
        "",
    ),
    "a negative number": ({"training": {"globalBatchSize": -8}}, "spec.training.globalBatchSize", "greater than"),
    "a real number out of its limits": (
        {"training": {"learningRate": "1.5"}},
        "spec.training.learningRate",
        "must be a decimal number > 0 and < 1",
    ),
    "epochs and steps": (
        {"training": {"epochs": 1, "maxSteps": 1}},
        "spec.training.maxSteps",
        "epochs and maxSteps exclude each other: keep one",
    ),
    "a claim of mine and one to create": (
        {"workspace": {"claimName": "mine"}},
        "spec.workspace",
        "exactly one of them",
    ),
    "no workspace at all": ({"workspace": {"size": None}}, "spec.workspace", "exactly one of them"),
    "a storage class for a claim of mine": (
        {"workspace": OWN_CLAIM | {"storageClassName": "fast"}},
        "spec.workspace",
        "leave them out beside claimName",
    ),
    "a claim of mine that would be deleted": (
        {"workspace": OWN_CLAIM | {"whenDeleted": "Delete"}},
        "spec.workspace",
        "leave them out beside claimName",
    ),
    "two ways to hold records out": (
        {"dataset": {"validation": {"split": "test", "fraction": "0.1"}}},
        "spec.dataset.validation",
        "exactly one of them",
    ),
    "a server without a merged model": (
        {"merge": {"enabled": False}},
        "spec.serve.enabled",
        "set merge.enabled to true, or serve.enabled to false",
    ),
    "no source of records": ({"dataset": {"sources": []}}, "spec.dataset.sources", "at least 1 items"),
    "a source of no known kind": ({"model": {"source": "gopher://x"}}, "spec.model.source", "should match"),
    "a quantity that is none": (
        {"podTemplate": {"all": {"resources": {"limits": {"cpu": "many"}}}}},
        "spec.podTemplate.all.resources.limits.cpu",
        "should match",
    ),
    "a variable with value and source": (
        {"podTemplate": {"all": {"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {}}}]}}},
        "spec.podTemplate.all.env",
        "not both",
    ),
    "a hang time-out that would end every run": (
        {"gang": {"hangTimeout": "0s"}},
        "spec.gang.hangTimeout",
        "must be at least 10s",
    ),
    "a merge in too little memory": (
        {"merge": {"memory": "63Mi"}},
        "spec.merge.memory",
        "must be at least 64Mi",
    ),
    "early stopping without validation records": (
        {"training": {"earlyStopping": {"patience": 2}}},
        "spec.training.earlyStopping",
        "set dataset.validation.split",
    ),
    "an evaluation without validation records": (
        {"training": {"evaluation": {"everySteps": 2}}},
        "spec.training.evaluation",
        "set dataset.validation.split",
    ),
    "selective layers of full checkpointing": (
        {"training": {"selectiveLayers": 2}},
        "spec.training.selectiveLayers",
        "activationCheckpointing: selective",
    ),
    "an identity for a training pod": (
        {"podTemplate": {"train": {"serviceAccountName": "reader"}}},
        'unknown field "spec.podTemplate.train.serviceAccountName"',
        "",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_kubectl_apply_refuses(kubectl: Kubectl, name: str) -> None:
    changes, path, words = REFUSED[name]
    said = refusal(kubectl, in_namespace(resource(**changes), "default"))
    assert path in said
    assert words in said


NOT_YET: dict[str, Case] = {
    "an S3 model": ({"model": {"source": "s3://bucket/x"}}, "spec.model.source", "s3://"),
    "a preset": ({"model": {"preset": "falcon-7b"}}, "spec.model.preset", "model.preset"),
    "a weight": (
        {"dataset": {"sources": [{"uri": "pvc://inputs/x", "weight": "2"}]}},
        "spec.dataset.sources[0].weight",
        "",
    ),
    "nvme": ({"training": {"deepspeed": {"offloadOptimizer": "nvme"}}}, "offloadOptimizer", "supports only none, cpu"),
}


@pytest.mark.parametrize("name", NOT_YET)
def test_what_this_release_does_not_obey_is_refused_and_never_ignored(kubectl: Kubectl, name: str) -> None:
    changes, path, words = NOT_YET[name]
    said = refusal(kubectl, in_namespace(resource(**changes), "default"))
    assert path in said
    assert words in said
    assert "this release" in said


@pytest.mark.parametrize("name", ["a" * 41, "1abc", "a.b"])
def test_a_name_that_cannot_name_pods_is_refused(kubectl: Kubectl, name: str) -> None:
    said = refusal(kubectl, in_namespace(resource(name), "default"))
    assert "metadata.name" in said
    assert "at most 40 characters" in said


def test_the_longest_name_is_accepted(kubectl: Kubectl) -> None:
    name = "a" + "-b" * 19 + "c"
    assert len(name) == 40
    apply(kubectl, in_namespace(resource(name), "default"), "--dry-run=server")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_accepted_and_filled_in_as_the_models_would(kubectl: Kubectl, namespace: str, path: Any) -> None:
    kubectl("-n", namespace, "apply", "-f", str(path))
    stored = kubectl.get("-n", namespace, "fft", path.stem)
    written = yaml.safe_load(path.read_text())
    meant = FalconFineTune.parse({**stored, "spec": written["spec"]}).spec
    assert FalconFineTune.parse(stored).spec == meant
    assert set(stored["spec"]) == set(meant.to_wire())


def test_the_smallest_spec_is_stored_exactly_as_the_models_would_write_it(kubectl: Kubectl, namespace: str) -> None:
    apply(kubectl, in_namespace(resource("small"), namespace))
    stored = kubectl.get("-n", namespace, "fft", "small")
    assert stored["spec"] == FalconFineTune.parse(resource("small")).spec.to_wire()


def test_labels_and_free_parts_are_kept(kubectl: Kubectl, namespace: str) -> None:
    affinity: dict[str, Any] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}
    }
    obj = in_namespace(resource("kept", podTemplate={"train": {"affinity": affinity}}), namespace)
    obj["metadata"]["labels"] = {"team": "nlp"}
    apply(kubectl, obj)
    stored = kubectl.get("-n", namespace, "fft", "kept")
    assert stored["spec"]["podTemplate"]["train"]["affinity"] == affinity
    assert stored["metadata"]["labels"] == {"team": "nlp"}


STATUS: dict[str, Any] = {
    "stage": "Training",
    "observedGeneration": 1,
    "acceptedSpecHash": "0123456789abcdef",
    "endpoint": "http://run-serve.ml.svc/v1",
    "training": {"step": 25, "totalSteps": 60, "percent": 41, "progress": "41%", "loss": "1.2345"}
    | {"eta": "3m12s", "estimatedSecondsLeft": 192, "attempt": 2},
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "reason": "Training",
            "message": "step 25 of 60",
            "lastTransitionTime": "2026-11-24T08:00:00Z",
            "observedGeneration": 1,
        }
    ],
}


def test_the_columns_tell_a_run_at_a_glance(kubectl: Kubectl, namespace: str) -> None:
    apply(kubectl, in_namespace(resource("run"), namespace))
    set_status(kubectl, namespace, "run", STATUS)
    header, row = kubectl("-n", namespace, "get", "fft").splitlines()
    assert header.split() == ["NAME", "STAGE", "PROGRESS", "LOSS", "ETA", "ATTEMPT", "ENDPOINT", "AGE"]
    assert row.split()[:-1] == ["run", "Training", "41%", "1.2345", "3m12s", "2", "http://run-serve.ml.svc/v1"]
    wide = kubectl("-n", namespace, "get", "falconft", "run", "-o", "wide")
    assert "step 25 of 60" in wide
    assert "run" in kubectl("-n", namespace, "get", "falcon")


def test_a_status_is_stored_as_the_models_write_it(kubectl: Kubectl, namespace: str) -> None:
    apply(kubectl, in_namespace(resource("run"), namespace))
    written = FalconFineTune.parse(laid_over(resource("run"), {"status": STATUS})).status.to_wire()
    set_status(kubectl, namespace, "run", written)
    assert kubectl.get("-n", namespace, "fft", "run")["status"] == written


def test_runs_are_selected_by_stage_and_model(kubectl: Kubectl, namespace: str) -> None:
    for name in ("one", "two"):
        apply(kubectl, in_namespace(resource(name), namespace))
    set_status(kubectl, namespace, "one", {"stage": "Training"})
    words = ("-n", namespace, "fft", "--field-selector")
    training = kubectl.get(*words, "status.stage=Training")["items"]
    assert [item["metadata"]["name"] for item in training] == ["one"]
    assert len(kubectl.get(*words, "spec.model.source=pvc://inputs/base")["items"]) == 2


def test_explain_tells_every_field(kubectl: Kubectl) -> None:
    said = kubectl("explain", "fft.spec.gang.nodeLossTolerationSeconds")
    assert "How long a pod stays bound to a node that stopped reporting" in said
