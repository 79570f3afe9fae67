"""Pod templates: `all`, the stage's own over it, and what neither can take from the stage."""

from typing import Any

import pytest

from tests.unit.operator.api.runs import a_run
from tests.unit.operator.stages.manifests import container, env, mounts, pod

LAYERS: dict[str, tuple[str, Any, Any, Any]] = {
    "labels are merged by key": ("labels", {"a": "1", "b": "1"}, {"b": "2"}, {"a": "1", "b": "2"}),
    "node selectors are merged by key": ("nodeSelector", {"a": "1"}, {"b": "2"}, {"a": "1", "b": "2"}),
    "tolerations add up": (
        "tolerations",
        [{"key": "a"}, {"key": "b"}],
        [{"key": "b"}, {"key": "c"}],
        [{"key": "a"}, {"key": "b"}, {"key": "c"}],
    ),
    "pull secrets add up": (
        "imagePullSecrets",
        [{"name": "a"}],
        [{"name": "b"}],
        [{"name": "a"}, {"name": "b"}],
    ),
    "a scheduler is replaced": ("schedulerName", "a", "b", "b"),
    "a priority is replaced": ("priorityClassName", "a", "b", "b"),
    "affinity is replaced as a whole": (
        "affinity",
        {"nodeAffinity": {"x": 1}},
        {"podAffinity": {}},
        {"podAffinity": {}},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_stages_template_lies_over_the_one_for_all(name: str) -> None:
    field, below, above, expected = LAYERS[name]
    both = a_run(podTemplate={"all": {field: below}, "prepare": {field: above}})
    alone = a_run(podTemplate={"all": {field: below}})
    for run, wanted in ((both, expected), (alone, below)):
        found = pod(run, "prepare")
        if field == "labels":
            assert wanted.items() <= found["metadata"]["labels"].items()
        else:
            assert found["spec"][field] == wanted


def test_a_template_of_one_stage_leaves_the_others_alone() -> None:
    run = a_run(podTemplate={"train": {"nodeSelector": {"pool": "gpu"}, "image": "other:1"}})
    assert pod(run, "train")["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert container(run, "train")["image"] == "other:1"
    assert "nodeSelector" not in pod(run, "merge")["spec"]
    assert container(run, "merge")["image"] == "registry.example/falcon-trainer:1"


def test_variables_are_merged_by_name_and_ours_go_before_them() -> None:
    run = a_run(
        podTemplate={
            "all": {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
            "train": {"env": [{"name": "B", "value": "2"}, {"name": "FALCON_ATTEMPT", "value": "99"}]},
        }
    )
    found = env(run, "train")
    assert (found["A"], found["B"], found["FALCON_ATTEMPT"]) == ("1", "2", "1")


def test_a_variable_may_come_from_a_source() -> None:
    source = {"secretKeyRef": {"name": "wandb", "key": "token"}}
    run = a_run(podTemplate={"train": {"env": [{"name": "WANDB_API_KEY", "valueFrom": source}]}})
    assert env(run, "train")["WANDB_API_KEY"] == source


def test_labels_that_children_are_found_by_cannot_be_taken() -> None:
    run = a_run(podTemplate={"all": {"labels": {"falcon-finetune.dev/run": "other", "team": "nlp"}}})
    found = pod(run, "train")["metadata"]["labels"]
    assert (found["falcon-finetune.dev/run"], found["team"]) == ("support-bot", "nlp")


def test_a_runs_volume_is_mounted_and_may_replace_our_scratch() -> None:
    cache = {"name": "nvme", "mountPath": "/tmp", "source": {"emptyDir": {"sizeLimit": "1Ti"}}}
    shared = {
        "name": "cache",
        "mountPath": "/cache",
        "subPath": "hub",
        "readOnly": True,
        "source": {"persistentVolumeClaim": {"claimName": "cache"}},
    }
    found = mounts(a_run(podTemplate={"train": {"volumes": [cache, shared]}}), "train")
    assert found["/tmp"]["emptyDir"] == {"sizeLimit": "1Ti"}
    assert found["/cache"] == {
        "name": "cache",
        "persistentVolumeClaim": {"claimName": "cache"},
        "mountPath": "/cache",
        "subPath": "hub",
        "readOnly": True,
    }


def test_only_the_prepare_pod_may_carry_an_identity() -> None:
    run = a_run(podTemplate={"prepare": {"serviceAccountName": "reader"}})
    assert pod(run, "prepare")["spec"]["serviceAccountName"] == "reader"
    assert pod(run, "prepare")["spec"]["automountServiceAccountToken"] is False
    for stage in ("train", "merge", "serve"):
        assert "serviceAccountName" not in pod(run, stage)["spec"]


def test_annotations_reach_the_pods() -> None:
    run = a_run(podTemplate={"all": {"annotations": {"a.example/x": "1"}}})
    assert pod(run, "serve")["metadata"]["annotations"] == {"a.example/x": "1"}
    assert "annotations" not in pod(a_run(), "serve")["metadata"]
