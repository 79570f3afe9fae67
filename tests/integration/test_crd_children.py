"""The manifests of the stages, judged by the real API server, Job controller and scheduler."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from falcon_operator.api.names import MAX_NAME, STAGES, StageName
from falcon_operator.api.resource import FalconFineTune
from tests.cluster.kubectl import Kubectl
from tests.cluster.shell import ClusterError, wait_until
from tests.integration.applying import restricted_namespace
from tests.unit.operator.api.runs import resource
from tests.unit.operator.stages.manifests import children, pod, workload

EVERYTHING: Mapping[str, Any] = {
    "model": {"source": "hf://tiiuae/falcon-7b", "tokenSecretRef": {"name": "hub", "key": "token"}},
    "gang": {"nodes": 2, "gpusPerNode": 1},
    "serve": {"gpus": 1, "apiKeySecretRef": {"name": "key", "key": "token"}},
    "publish": [
        {"uri": "hf://acme/bot", "secretName": "hub"},
        {"uri": "pvc://models/bot", "what": "adapter"},
        {"uri": "s3://models/bot", "secretName": "bucket"},
    ],
    "podTemplate": {
        "all": {
            "labels": {"team": "nlp"},
            "annotations": {"example.com/note": "any text"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "x", "effect": "NoSchedule"}],
            "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
            "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
            "volumes": [{"name": "cache", "mountPath": "/cache", "source": {"emptyDir": {"sizeLimit": "1Gi"}}}],
            "imagePullSecrets": [{"name": "registry"}],
            "schedulerName": "default-scheduler",
        },
        "prepare": {"serviceAccountName": "default"},
        "publish": {"serviceAccountName": "default"},
        "train": {"affinity": {"podAntiAffinity": {}}},
    },
}
INDEX = "batch.kubernetes.io/job-completion-index"
RUNS: dict[str, Mapping[str, Any]] = {"the smallest spec": {}, "a spec with everything": EVERYTHING}


def run_in(namespace: str, name: str = "support-bot", /, **changes: Any) -> FalconFineTune:
    """A run in this namespace."""
    obj = resource(name, **changes)
    obj["metadata"]["namespace"] = namespace
    return FalconFineTune.parse(obj)


def stored_run(kubectl: Kubectl, namespace: str, name: str = "support-bot", /, **changes: Any) -> FalconFineTune:
    """A run that the API server knows, so that the garbage collector lets its children be."""
    obj = resource(name, **changes)
    obj["metadata"] = {"name": name, "namespace": namespace}
    kubectl.apply(obj)
    return FalconFineTune.parse(kubectl.get("-n", namespace, "fft", name))


def create(kubectl: Kubectl, obj: Mapping[str, Any], *words: str) -> str:
    return kubectl("create", "--validate=strict", *words, "-f", "-", stdin=json.dumps(obj))


def as_pod(run: FalconFineTune, stage: StageName) -> dict[str, Any]:
    """A pod of the stage as its controller would create it."""
    template = pod(run, stage)
    metadata = template["metadata"] | {"name": f"{run.name}-{stage}-0", "namespace": run.namespace}
    return {"apiVersion": "v1", "kind": "Pod"} | template | {"metadata": metadata}


@pytest.fixture(scope="module")
def restricted(kubectl: Kubectl) -> Iterator[str]:
    """A namespace in which nothing is created."""
    with restricted_namespace(kubectl) as namespace:
        yield namespace


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", RUNS)
def test_the_restricted_profile_admits_a_stages_pod(
    kubectl: Kubectl, restricted: str, name: str, stage: StageName
) -> None:
    create(kubectl, as_pod(run_in(restricted, **RUNS[name]), stage), "--dry-run=server")


def test_the_namespace_does_enforce_the_restricted_profile(kubectl: Kubectl, restricted: str) -> None:
    obj = as_pod(run_in(restricted), "train")
    del obj["spec"]["securityContext"]["seccompProfile"]
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        create(kubectl, obj, "--dry-run=server")


@pytest.mark.parametrize("run_name", ["support-bot", "a" * MAX_NAME])
@pytest.mark.parametrize("name", RUNS)
def test_the_api_server_takes_every_child(kubectl: Kubectl, restricted: str, name: str, run_name: str) -> None:
    for child in children(run_in(restricted, run_name, **RUNS[name])):
        said = create(kubectl, child, "--dry-run=server")
        assert child["metadata"]["name"] in said


def test_a_misspelt_field_of_a_free_part_is_told_when_the_pod_is_made(kubectl: Kubectl, restricted: str) -> None:
    affinity: dict[str, Any] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExekution": {}}}
    run = run_in(restricted, podTemplate={"merge": {"affinity": affinity}})
    with pytest.raises(ClusterError, match="unknown field"):
        create(kubectl, workload(run, "merge"), "--dry-run=server")


def gang_pods(kubectl: Kubectl, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = kubectl.get("-n", namespace, "pods", "-l", "falcon-finetune.dev/stage=train")["items"]
    return items


def start_gang(kubectl: Kubectl, namespace: str, nodes: int, **changes: Any) -> FalconFineTune:
    """Creates the gang's Job and waits until its pods exist; the claims that it mounts are bound by hand."""
    run = stored_run(kubectl, namespace, gang={"nodes": nodes, "gpusPerNode": 0}, **changes)
    job = workload(run, "train")
    # Nobody provisions volumes here, and the scheduler would wait for the claims.
    spec = job["spec"]["template"]["spec"]
    spec["volumes"] = [
        {"name": v["name"], "emptyDir": {}} if "persistentVolumeClaim" in v else v for v in spec["volumes"]
    ]
    create(kubectl, job)
    wait_until(lambda: len(gang_pods(kubectl, namespace)) == nodes, timeout=30, what=f"{nodes} pods")
    return run


def scheduled(kubectl: Kubectl, namespace: str) -> list[str]:
    return [node for found in gang_pods(kubectl, namespace) if (node := found["spec"].get("nodeName"))]


def test_the_job_controller_names_rank_0_as_the_rendezvous_expects(kubectl: Kubectl, namespace: str) -> None:
    run = start_gang(kubectl, namespace, 2)
    spec = {found["metadata"]["labels"][INDEX]: found["spec"] for found in gang_pods(kubectl, namespace)}
    (told,) = [v for v in spec["1"]["containers"][0]["env"] if v["name"] == "FALCON_RENDEZVOUS_HOST"]
    rank_0 = f"{spec['0']['hostname']}.{spec['0']['subdomain']}.{namespace}.svc"
    assert told["value"] == rank_0
    assert any(v["name"] == "JOB_COMPLETION_INDEX" for v in spec["1"]["containers"][0]["env"])
    assert run.name in rank_0


def test_two_pods_lie_on_two_nodes(kubectl: Kubectl, namespace: str) -> None:
    start_gang(kubectl, namespace, 2)
    wait_until(lambda: len(scheduled(kubectl, namespace)) == 2, timeout=30, what="both pods to be scheduled")
    assert len(set(scheduled(kubectl, namespace))) == 2


def test_a_gang_larger_than_the_cluster_never_stacks_pods_on_a_node(kubectl: Kubectl, namespace: str) -> None:
    start_gang(kubectl, namespace, 3)

    def says_why() -> bool:
        conditions = [c for found in gang_pods(kubectl, namespace) for c in found["status"].get("conditions", [])]
        return any(c.get("reason") == "Unschedulable" and "topology spread" in c["message"] for c in conditions)

    wait_until(says_why, timeout=30, what="the third pod to be unschedulable")
    assert len(set(scheduled(kubectl, namespace))) == len(scheduled(kubectl, namespace)) == 2


def test_a_run_that_says_so_may_stack_its_pods(kubectl: Kubectl, namespace: str) -> None:
    start_gang(kubectl, namespace, 3, podTemplate={"train": {"affinity": {"podAntiAffinity": {}}}})
    wait_until(lambda: len(scheduled(kubectl, namespace)) == 3, timeout=30, what="all pods to be scheduled")


def test_children_go_with_the_run_and_a_retained_claim_stays(kubectl: Kubectl, namespace: str) -> None:
    run = stored_run(kubectl, namespace)
    for child in children(run):
        create(kubectl, child)
    kubectl("-n", namespace, "delete", "fft", run.name, "--cascade=background")
    kinds = "jobs,services,deployments,configmaps,pods"
    words = ("-n", namespace, "get", kinds, "-l", "falcon-finetune.dev/run=support-bot", "-o", "name")
    wait_until(lambda: not kubectl(*words), timeout=60, what="the children to go")
    assert kubectl("-n", namespace, "get", "pvc", "-o", "name").split() == [
        "persistentvolumeclaim/support-bot-workspace"
    ]
