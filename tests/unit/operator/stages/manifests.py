"""All manifests of a run, for rules that hold for each of them."""

from collections.abc import Iterator
from typing import Any

from falcon_operator.api.names import STAGES, StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages import evaluate, merge, prepare, publish, serve, train
from falcon_operator.stages.manifest import Manifest
from falcon_operator.stages.settings import StageSettings
from falcon_operator.stages.workspace import workspace_claim
from tests.unit.operator.api.runs import ADAPTER, MERGED

SETTINGS = StageSettings(image="registry.example/falcon-trainer:1")


def workload(run: FalconFineTune, stage: StageName, attempt: int = 1) -> Manifest:
    """The Job or Deployment of a stage."""
    if stage == "prepare":
        return prepare.prepare_job(run, SETTINGS)
    if stage == "train":
        return train.train_job(run, SETTINGS, attempt)
    if stage == "merge":
        return merge.merge_job(run, SETTINGS, ADAPTER)
    if stage == "publish":
        return publish.publish_job(run, SETTINGS, ADAPTER, MERGED)
    if stage == "evaluate":
        return evaluate.evaluate_job(run, SETTINGS, MERGED)
    return serve.serve_deployment(run, SETTINGS, MERGED)


def config(run: FalconFineTune, stage: StageName) -> Manifest:
    """The ConfigMap of a stage."""
    if stage == "merge":
        return merge.merge_config(run, ADAPTER)
    if stage == "publish":
        return publish.publish_config(run, ADAPTER, MERGED)
    if stage == "evaluate":
        return evaluate.evaluate_config(run, MERGED)
    if stage == "serve":
        return serve.serve_config(run, MERGED)
    return prepare.prepare_config(run) if stage == "prepare" else train.train_config(run)


def children(run: FalconFineTune) -> Iterator[Manifest]:
    """Every child of a run."""
    if claim := workspace_claim(run):
        yield claim
    yield train.train_service(run)
    yield serve.serve_service(run)
    for stage in STAGES:
        yield config(run, stage)
        yield workload(run, stage)


def pod(run: FalconFineTune, stage: StageName, attempt: int = 1) -> dict[str, Any]:
    """The pod template of a stage."""
    template: dict[str, Any] = workload(run, stage, attempt)["spec"]["template"]
    return template


def container(run: FalconFineTune, stage: StageName, attempt: int = 1) -> dict[str, Any]:
    """The one container of a stage."""
    (only,) = pod(run, stage, attempt)["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def env(run: FalconFineTune, stage: StageName, attempt: int = 1) -> dict[str, Any]:
    """The variables of a stage's container: name to value, or to its source."""
    entries = container(run, stage, attempt)["env"]
    assert len({entry["name"] for entry in entries}) == len(entries)
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


def mounts(run: FalconFineTune, stage: StageName) -> dict[str, dict[str, Any]]:
    """What the container sees where: mount path to the mount and its volume."""
    volumes = {volume["name"]: volume for volume in pod(run, stage)["spec"]["volumes"]}
    found = {}
    for mount in container(run, stage)["volumeMounts"]:
        assert mount["mountPath"] not in found
        found[mount["mountPath"]] = volumes[mount["name"]] | mount
    assert {mount["name"] for mount in found.values()} == set(volumes)
    return found
