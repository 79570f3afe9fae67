"""What holds for every child of a run."""

import json
from typing import Any

import pytest

from falcon_operator.api.names import HASH_ANNOTATION, MAX_NAME, STAGES, StageName
from falcon_operator.stages import merge, naming, serve, train
from falcon_operator.stages.jobs import FINAL_CODES, told_by
from falcon_operator.stages.workspace import workspace_claim
from falcon_trainer.config import Artifact, RunConfig
from falcon_trainer.outcome import RETRYABLE, ExitCode
from tests.unit.operator.api.runs import ADAPTER, MERGED, a_run
from tests.unit.operator.stages.manifests import SETTINGS, children, config, workload

OF_ONE_POD: tuple[StageName, ...] = ("prepare", "merge", "publish", "evaluate")
LONG = "a" * MAX_NAME
LABEL = 63


def test_the_children_of_a_run() -> None:
    names = [f"{child['kind']}/{child['metadata']['name']}" for child in children(a_run())]
    fixed = [name for name in names if not name.startswith("ConfigMap/")]
    assert fixed == [
        "PersistentVolumeClaim/support-bot-workspace",
        "Service/support-bot-train",
        "Service/support-bot-serve",
        "Job/support-bot-prepare",
        "Job/support-bot-train-1",
        "Job/support-bot-merge",
        "Deployment/support-bot-serve",
        "Job/support-bot-evaluate",
        "Job/support-bot-publish",
    ]
    assert len(set(names)) == len(names) == 15


def test_every_child_but_a_retained_claim_goes_with_the_run() -> None:
    for child in children(a_run()):
        owners = child["metadata"].get("ownerReferences", [])
        if child["kind"] == "PersistentVolumeClaim":
            assert owners == []
            continue
        (owner,) = owners
        assert owner["controller"] is owner["blockOwnerDeletion"] is True
        assert owner["kind"] == "FalconFineTune"


def test_every_child_says_whose_it_is() -> None:
    for child in children(a_run()):
        metadata = child["metadata"]
        assert metadata["namespace"] == "ml"
        assert metadata["labels"]["falcon-finetune.dev/run"] == "support-bot"
        stage = metadata["labels"].get("falcon-finetune.dev/stage")
        assert child["kind"] == "PersistentVolumeClaim" or stage in STAGES
        assert len(metadata["annotations"][HASH_ANNOTATION]) == 16


def test_names_of_the_longest_run_stay_within_a_dns_label() -> None:
    run = a_run(LONG, gang={"nodes": 512})
    for child in children(run):
        assert len(child["metadata"]["name"]) <= LABEL, child["metadata"]["name"]
        for value in child["metadata"]["labels"].values():
            assert len(value) <= LABEL
    assert len(f"{naming.train_job_name(run, 9999)}-511") <= LABEL
    assert len(naming.rendezvous_host(run, 9999).split(".")[0]) <= LABEL


@pytest.mark.parametrize(
    ("name", "attempt"),
    [
        ("support-bot-train-1", 1),
        ("support-bot-train-12", 12),
        ("support-bot-train-x", None),
        ("support-bot-train-", None),
        ("support-bot-train-1-2", None),
        ("other-train-1", None),
        ("support-bot-merge", None),
    ],
)
def test_the_attempt_is_read_from_the_jobs_name(name: str, attempt: int | None) -> None:
    assert naming.attempt_of(a_run(), name) == attempt


def test_the_same_run_gives_the_same_children() -> None:
    assert list(children(a_run())) == list(children(a_run()))


HASHED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "the number of restarts concerns the next attempt alone": ({"gang": {"maxRestarts": 9}}, {"train"}),
    "the number of ranks is also checked before": ({"gang": {"processesPerNode": 2}}, {"prepare", "train"}),
    "replicas change the server": ({"serve": {"replicas": 2}}, {"serve"}),
    "the server's GPUs change the server": ({"serve": {"gpus": 1}}, {"serve"}),
    "the merged type changes the merge": ({"merge": {"dtype": "float32"}}, {"merge"}),
    "the merge's memory changes the merge": ({"merge": {"memory": "1Gi"}}, {"merge"}),
    "what is published changes the publishing": ({"publish": [{"uri": "s3://models/bot"}]}, {"publish"}),
    "a token changes the server and those who ask it": (
        {"serve": {"apiKeySecretRef": {"name": "key", "key": "token"}}},
        {"serve", "evaluate"},
    ),
    "resources of one stage change that stage": (
        {"podTemplate": {"merge": {"resources": {"requests": {"memory": "64Gi"}}}}},
        {"merge"},
    ),
}


@pytest.mark.parametrize("name", HASHED)
def test_only_the_stage_that_is_concerned_changes(name: str) -> None:
    """A child whose hash stays is not written: a running server is rolled out only for its own sake."""
    changes, changed = HASHED[name]
    # A given access mode, so that the number of replicas says nothing about the claim.
    before = a_run(workspace={"accessMode": "ReadWriteMany"})
    after = a_run(workspace={"accessMode": "ReadWriteMany"}, **changes)
    assert {stage for stage in STAGES if workload(before, stage) != workload(after, stage)} == changed


def test_the_hash_follows_the_content() -> None:
    before, after = workload(a_run(), "serve"), workload(a_run(serve={"gpus": 1}), "serve")
    hashes = {child["metadata"]["annotations"][HASH_ANNOTATION] for child in (before, after)}
    assert len(hashes) == 2


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_back_what_it_is_told(stage: StageName) -> None:
    manifest = config(a_run(lora={"dropout": "0.05"}), stage)
    told = RunConfig.model_validate_json(manifest["data"]["run.json"])
    assert manifest["immutable"] is True
    assert (told.run, told.namespace, told.lora.dropout) == ("support-bot", "ml", 0.05)
    assert told.adapter == (ADAPTER if stage in ("merge", "publish") else None)
    assert told.merged == (MERGED if stage in ("serve", "publish", "evaluate") else None)
    assert told.endpoint == ("http://support-bot-serve.ml.svc/v1" if stage == "evaluate" else None)


def test_a_merge_is_told_which_model_is_served_meanwhile() -> None:
    told = merge.merge_config(a_run(), ADAPTER, MERGED)["data"]["run.json"]
    assert RunConfig.model_validate_json(told).merged == MERGED


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_publish_stage_is_told_where_to_publish(stage: StageName) -> None:
    run = a_run(publish=[{"uri": "s3://models/bot", "secretName": "bucket"}])
    told = RunConfig.model_validate_json(config(run, stage)["data"]["run.json"])
    assert told.publish == (run.spec.publish if stage == "publish" else None)


@pytest.mark.parametrize("stage", OF_ONE_POD)
def test_a_job_says_which_config_its_pods_are_told_by(stage: StageName) -> None:
    run = a_run()
    assert told_by(workload(run, stage)) == config(run, stage)["metadata"]["name"]


def test_another_artifact_is_another_config() -> None:
    other = Artifact(path=MERGED.path, digest=f"sha256:{'0c' * 32}", bytes=2)
    one, two = serve.serve_config(a_run(), MERGED), serve.serve_config(a_run(), other)
    assert one["metadata"]["name"] != two["metadata"]["name"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_pod_mounts_the_config_of_its_stage(stage: StageName) -> None:
    volumes = workload(a_run(), stage)["spec"]["template"]["spec"]["volumes"]
    named = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    assert named == [config(a_run(), stage)["metadata"]["name"]]


@pytest.mark.parametrize("stage", OF_ONE_POD)
def test_a_job_of_one_pod_retries_what_may_pass_and_fails_at_once_on_what_will_not(stage: StageName) -> None:
    spec = workload(a_run(), stage)["spec"]
    ignore, fail = spec["podFailurePolicy"]["rules"]
    assert spec["backoffLimit"] == 10
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert fail == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [64, 65, 66, 73, 77]}}


def test_every_exit_code_is_final_or_retryable() -> None:
    assert set(FINAL_CODES) | {int(code) for code in RETRYABLE} | {0} == {int(code) for code in ExitCode}
    assert not set(FINAL_CODES) & {int(code) for code in RETRYABLE}


def test_a_gang_is_an_indexed_job_that_never_replaces_a_pod() -> None:
    spec = train.train_job(a_run(gang={"nodes": 3}), SETTINGS, 2)["spec"]
    assert {key: value for key, value in spec.items() if key != "template"} == {
        "completionMode": "Indexed",
        "completions": 3,
        "parallelism": 3,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
    }
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_the_gang_meets_through_a_headless_service_that_knows_pods_before_they_are_ready() -> None:
    run = a_run()
    service, job = train.train_service(run), train.train_job(run, SETTINGS, 7)
    pods = job["spec"]["template"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= pods["metadata"]["labels"].items()
    assert pods["spec"]["subdomain"] == service["metadata"]["name"]
    assert naming.rendezvous_host(run, 7) == "support-bot-train-7-0.support-bot-train.ml.svc"


def test_the_server_is_reached_on_port_80() -> None:
    run = a_run()
    deployment, service = serve.serve_deployment(run, SETTINGS, MERGED), serve.serve_service(run)
    (port,) = service["spec"]["ports"]
    ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert (port["port"], port["targetPort"]) == (80, "http")
    assert {"name": "http", "containerPort": 8000, "protocol": "TCP"} in ports
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert naming.endpoint(run) == "http://support-bot-serve.ml.svc/v1"


ACCESS: dict[str, tuple[dict[str, Any], str]] = {
    "one node and one server share nothing": ({}, "ReadWriteOnce"),
    "several nodes share the volume": ({"gang": {"nodes": 2}}, "ReadWriteMany"),
    "several servers share the volume": ({"serve": {"replicas": 2}}, "ReadWriteMany"),
    "the run decides": ({"workspace": {"accessMode": "ReadWriteMany"}}, "ReadWriteMany"),
}


@pytest.mark.parametrize("name", ACCESS)
def test_access_mode(name: str) -> None:
    changes, mode = ACCESS[name]
    claim = workspace_claim(a_run(**changes))
    assert claim is not None
    assert claim["spec"] == {"accessModes": [mode], "resources": {"requests": {"storage": "2Gi"}}}


def test_a_claim_of_the_users_is_not_made() -> None:
    run = a_run(workspace={"size": None, "claimName": "mine"})
    assert workspace_claim(run) is None
    assert naming.workspace_claim_name(run) == "mine"


def test_a_claim_that_is_to_go_with_the_run_has_it_as_owner() -> None:
    claim = workspace_claim(a_run(workspace={"whenDeleted": "Delete", "storageClassName": "fast"}))
    assert claim is not None
    assert claim["metadata"]["ownerReferences"][0]["name"] == "support-bot"
    assert claim["spec"]["storageClassName"] == "fast"


def test_manifests_are_plain_json() -> None:
    for child in children(a_run()):
        assert json.loads(json.dumps(child)) == child
