"""The pods: hardened, told what they need, placed where the run says."""

from collections.abc import Mapping
from typing import Any

import pytest

from falcon_operator.api.names import STAGES, StageName
from falcon_operator.stages import serve, train
from tests.unit.operator.api.runs import a_run
from tests.unit.operator.stages.manifests import container, env, mounts, pod

TOKEN = {"model": {"source": "hf://tiiuae/falcon-7b", "tokenSecretRef": {"name": "hub", "key": "hf"}}}


@pytest.mark.parametrize("stage", STAGES)
def test_a_pod_is_hardened_as_the_restricted_profile_asks(stage: StageName) -> None:
    spec = pod(a_run(), stage)["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(a_run(), stage)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()


@pytest.mark.parametrize("stage", STAGES)
def test_a_pod_gets_no_api_token_and_no_service_variables(stage: StageName) -> None:
    spec = pod(a_run(), stage)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert "serviceAccountName" not in spec


def test_only_the_prepare_pod_gets_the_hub_token_and_as_a_file_of_its_group() -> None:
    run = a_run(**TOKEN)
    mount = mounts(run, "prepare")["/etc/falcon-token"]
    assert mount["secret"] == {
        "secretName": "hub",
        "items": [{"key": "hf", "path": "token"}],
        "defaultMode": 0o440,
    }
    for stage in set(STAGES) - {"prepare"}:
        assert "/etc/falcon-token" not in mounts(run, stage)
        assert "hub" not in str(pod(run, stage))


@pytest.mark.parametrize("stage", STAGES)
def test_the_launcher_starts_the_stage(stage: StageName) -> None:
    found = container(a_run(), stage)
    assert found["args"] == [stage]
    assert "command" not in found
    assert found["image"] == "registry.example/falcon-trainer:1"
    assert found["terminationMessagePolicy"] == "FallbackToLogsOnError"


MOUNTED: dict[StageName, tuple[set[str], set[str]]] = {
    "prepare": ({"/workspace", "/tmp"}, {"/etc/falcon", "/sources/inputs", "/sources/base"}),
    "train": ({"/workspace", "/tmp", "/dev/shm"}, {"/etc/falcon", "/sources/base"}),
    "merge": ({"/workspace", "/tmp"}, {"/etc/falcon", "/sources/base"}),
    "serve": ({"/tmp", "/dev/shm"}, {"/etc/falcon", "/workspace"}),
    "publish": ({"/tmp"}, {"/etc/falcon", "/workspace"}),
    "evaluate": ({"/workspace", "/tmp"}, {"/etc/falcon"}),
}
"""stage → (writable, read-only)"""


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_sees_what_it_needs_and_writes_where_it_must(stage: StageName) -> None:
    found = mounts(a_run(model={"source": "pvc://base/falcon"}), stage)
    writable = {path for path, mount in found.items() if not mount.get("readOnly")}
    assert (writable, set(found) - writable) == MOUNTED[stage]


def test_a_source_on_the_workspaces_own_claim_shares_its_volume() -> None:
    run = a_run(workspace={"size": None, "claimName": "inputs"})
    found = mounts(run, "prepare")
    assert found["/sources/inputs"]["name"] == found["/workspace"]["name"]
    assert found["/sources/inputs"]["readOnly"] is True
    assert "readOnly" not in found["/workspace"]


def test_a_claim_named_twice_is_mounted_once() -> None:
    sources = [{"uri": "pvc://inputs/a.jsonl"}, {"uri": "pvc://inputs/b.jsonl"}, {"uri": "pvc://more/c"}]
    spec = pod(a_run(dataset={"sources": sources}), "prepare")["spec"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert claims == ["support-bot-workspace", "inputs", "more"]


def test_a_config_map_of_records_is_mounted_where_no_claim_can_lie() -> None:
    sources = [{"uri": "configmap://inputs/a.jsonl"}, {"uri": "configmap://inputs/b.jsonl"}, {"uri": "pvc://inputs/c"}]
    found = mounts(a_run(dataset={"sources": sources}), "prepare")
    assert found["/sources/_configmaps/inputs"]["configMap"] == {"name": "inputs"}
    assert found["/sources/_configmaps/inputs"]["readOnly"] is True
    assert "persistentVolumeClaim" in found["/sources/inputs"]
    assert "inputs" not in str(pod(a_run(dataset={"sources": sources}, model=TOKEN["model"]), "train"))


def test_only_the_prepare_pod_sees_the_adapter_to_start_from() -> None:
    run = a_run(lora={"initialAdapter": "pvc://adapters/support-v1"})
    assert mounts(run, "prepare")["/sources/adapters"]["readOnly"] is True
    for stage in set(STAGES) - {"prepare"}:
        assert "adapters" not in str(pod(run, stage)["spec"]["volumes"])


PUBLISHED: dict[str, Any] = {
    "publish": [
        {"uri": "pvc://models/bot"},
        {"uri": "hf://acme/bot", "secretName": "hub"},
        {"uri": "pvc://models/bot-adapter", "what": "adapter"},
        {"uri": "s3://models/bot", "secretName": "bucket"},
    ]
}


def test_the_publish_pod_writes_to_the_claims_that_are_targets() -> None:
    found = mounts(a_run(**PUBLISHED), "publish")
    writable = {path: mount for path, mount in found.items() if not mount.get("readOnly")}
    assert set(writable) == {"/tmp", "/published/models"}
    assert writable["/published/models"]["persistentVolumeClaim"] == {"claimName": "models"}


def test_the_publish_pod_reads_the_credentials_of_each_copy_in_a_folder_of_its_own() -> None:
    found = mounts(a_run(**PUBLISHED), "publish")
    secrets = {path: mount["secret"] for path, mount in found.items() if "secret" in mount}
    assert secrets == {
        "/etc/falcon-publish/1": {"secretName": "hub", "defaultMode": 0o440},
        "/etc/falcon-publish/3": {"secretName": "bucket", "defaultMode": 0o440},
    }


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"publish"}))
def test_no_other_pod_sees_targets_or_their_credentials(stage: StageName) -> None:
    assert pod(a_run(**PUBLISHED), stage)["spec"] == pod(a_run(), stage)["spec"]


@pytest.mark.parametrize("stage", ["prepare", "publish"])
def test_a_pod_that_talks_to_other_systems_may_have_an_identity(stage: StageName) -> None:
    spec = pod(a_run(podTemplate={stage: {"serviceAccountName": "writer"}}), stage)["spec"]
    assert spec["serviceAccountName"] == "writer"
    assert spec["automountServiceAccountToken"] is False


def test_the_evaluation_sends_the_token_that_the_server_asks_for() -> None:
    run = a_run(serve={"apiKeySecretRef": {"name": "key", "key": "token"}})
    assert env(run, "evaluate")["FALCON_API_KEY"] == {"secretKeyRef": {"name": "key", "key": "token"}}
    assert "FALCON_API_KEY" not in env(a_run(), "evaluate")


def test_a_token_for_a_data_set_reaches_the_prepare_pod_of_a_model_on_a_claim() -> None:
    model = {"tokenSecretRef": {"name": "hub", "key": "hf"}}
    run = a_run(model=model, dataset={"sources": [{"uri": "hf://acme/tickets"}]})
    assert mounts(run, "prepare")["/etc/falcon-token"]["secret"]["secretName"] == "hub"


def test_a_rank_is_told_its_attempt_and_where_to_meet() -> None:
    found = env(a_run(), "train", attempt=3)
    assert found["FALCON_ATTEMPT"] == "3"
    assert found["FALCON_RENDEZVOUS_HOST"] == "support-bot-train-3-0.support-bot-train.ml.svc"
    assert found["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert found["POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert found["FALCON_NODE"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


@pytest.mark.parametrize("stage", STAGES)
def test_the_launcher_has_time_to_write_the_outcome_before_the_pod_is_killed(stage: StageName) -> None:
    grace = pod(a_run(), stage)["spec"]["terminationGracePeriodSeconds"]
    assert int(env(a_run(), stage)["FALCON_GRACE_SECONDS"]) == grace - 5 > 0


def test_pods_carry_run_stage_and_attempt() -> None:
    found = pod(a_run(), "train", attempt=4)["metadata"]["labels"]
    assert found["falcon-finetune.dev/run"] == "support-bot"
    assert found["falcon-finetune.dev/stage"] == "train"
    assert found["falcon-finetune.dev/attempt"] == "4"


@pytest.mark.parametrize("stage", ["prepare", "train", "merge", "publish", "evaluate"])
def test_the_kubelet_watches_the_launcher(stage: StageName) -> None:
    found = container(a_run(), stage)
    assert found["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "progress"}
    assert {"name": "progress", "containerPort": 8080, "protocol": "TCP"} in found["ports"]
    assert "readinessProbe" not in found


def test_the_server_may_load_for_an_hour_and_is_ready_after_a_completion() -> None:
    found = container(a_run(), "serve")
    start = found["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] == 3600
    assert start["httpGet"] == found["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "http"}
    assert found["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert serve.LOAD_SECONDS < 3900


# --- GPUs


@pytest.mark.parametrize(
    ("changes", "stage", "gpus"),
    [
        ({}, "train", 1),
        ({"gang": {"gpusPerNode": 8}}, "train", 8),
        ({"gang": {"gpusPerNode": 0}}, "train", None),
        ({"gang": {"gpusPerNode": 8}}, "prepare", None),
        ({"gang": {"gpusPerNode": 8}}, "merge", None),
        ({"gang": {"gpusPerNode": 8}}, "serve", None),
        ({"serve": {"gpus": 2}}, "serve", 2),
    ],
)
def test_gpus_are_asked_for_where_they_are_used(changes: Mapping[str, Any], stage: StageName, gpus: int | None) -> None:
    run = a_run(**changes)
    assert container(run, stage).get("resources", {}).get("limits", {}).get("nvidia.com/gpu") == gpus
    keys = [toleration["key"] for toleration in pod(run, stage)["spec"].get("tolerations", [])]
    assert ("nvidia.com/gpu" in keys) is (gpus is not None)


def test_gpus_and_the_runs_limits_stand_side_by_side() -> None:
    run = a_run(podTemplate={"train": {"resources": {"limits": {"memory": "64Gi"}, "requests": {"cpu": 4}}}})
    assert container(run, "train")["resources"] == {
        "limits": {"memory": "64Gi", "nvidia.com/gpu": 1},
        "requests": {"cpu": 4},
    }


def test_no_resources_are_asked_for_by_default() -> None:
    assert "resources" not in container(a_run(), "prepare")


# --- placement


BESIDE_THE_SERVER: tuple[StageName, ...] = ("merge", "publish", "evaluate")


@pytest.mark.parametrize("stage", BESIDE_THE_SERVER)
def test_a_volume_of_one_node_keeps_the_pods_on_that_node(stage: StageName) -> None:
    run = a_run(serve={"gpus": 1})
    spec = pod(run, stage)["spec"]
    (near,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert near["topologyKey"] == "kubernetes.io/hostname"
    for each in (stage, "serve"):
        labels = pod(run, each)["metadata"]["labels"]
        assert near["labelSelector"]["matchLabels"].items() <= labels.items(), "the first one may lie anywhere"
    assert [each["key"] for each in spec["tolerations"]] == ["nvidia.com/gpu"], "the server's node has GPUs"
    assert "tolerations" not in pod(a_run(), stage)["spec"]


@pytest.mark.parametrize("stage", BESIDE_THE_SERVER)
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"workspace": {"accessMode": "ReadWriteMany"}}, id="a volume that all nodes mount"),
        pytest.param({"workspace": {"size": None, "claimName": "mine"}}, id="a claim of the user's"),
    ],
)
def test_other_volumes_leave_the_pods_free(stage: StageName, changes: Mapping[str, Any]) -> None:
    assert "affinity" not in pod(a_run(**changes), stage)["spec"]


@pytest.mark.parametrize("stage", BESIDE_THE_SERVER)
def test_the_runs_own_affinity_stays_beside_ours_or_in_its_place(stage: StageName) -> None:
    nodes: dict[str, Any] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    assert pod(a_run(podTemplate={stage: {"affinity": nodes}}), stage)["spec"]["affinity"].keys() == {
        "nodeAffinity",
        "podAffinity",
    }
    own: dict[str, Any] = {"podAffinity": {}}
    assert pod(a_run(podTemplate={stage: {"affinity": own}}), stage)["spec"]["affinity"] == own


def spread(**changes: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pod(a_run(**changes), "train")["spec"].get("topologySpreadConstraints", [])
    return found


def test_a_gangs_pods_lie_on_different_nodes() -> None:
    (constraint,) = spread(gang={"nodes": 4})
    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    assert (constraint["maxSkew"], constraint["minDomains"]) == (1, 4)
    assert constraint["whenUnsatisfiable"] == "DoNotSchedule"
    assert constraint["nodeTaintsPolicy"] == constraint["nodeAffinityPolicy"] == "Honor"
    assert constraint["labelSelector"]["matchLabels"]["falcon-finetune.dev/attempt"] == "1"


@pytest.mark.parametrize("kind", ["podAffinity", "podAntiAffinity"])
@pytest.mark.parametrize("layer", ["all", "train"])
def test_the_runs_own_word_on_how_pods_lie_replaces_ours(kind: str, layer: str) -> None:
    assert spread(gang={"nodes": 4}, podTemplate={layer: {"affinity": {kind: {}}}}) == []


def test_node_affinity_leaves_the_spreading_alone() -> None:
    assert len(spread(gang={"nodes": 4}, podTemplate={"train": {"affinity": {"nodeAffinity": {}}}})) == 1


def test_one_pod_needs_no_spreading() -> None:
    assert spread(gang={"nodes": 1}) == []


def test_a_pod_leaves_a_lost_node_after_the_time_that_the_run_says() -> None:
    tolerations = pod(a_run(gang={"nodeLossTolerationSeconds": 7}), "train")["spec"]["tolerations"]
    lost = {t["key"]: t for t in tolerations if t["key"].startswith("node.kubernetes.io/")}
    assert set(lost) == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
    assert {t["tolerationSeconds"] for t in lost.values()} == {7}
    assert {t["effect"] for t in lost.values()} == {"NoExecute"}


def test_the_runs_tolerations_go_before_ours_of_the_same_key() -> None:
    own = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 600}
    tolerations = pod(a_run(podTemplate={"train": {"tolerations": [own]}}), "train")["spec"]["tolerations"]
    assert [t for t in tolerations if t["key"] == own["key"]] == [own]
    assert len(tolerations) == 3


def test_the_rendezvous_port_is_named() -> None:
    assert {"name": "rendezvous", "containerPort": 29500, "protocol": "TCP"} in container(a_run(), "train")["ports"]
    assert train.train_service(a_run())["spec"]["ports"][0]["port"] == 29500
