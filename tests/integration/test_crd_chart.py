"""The Helm chart, installed for real: what the operator may do, what an upgrade and an uninstall leave behind."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.cluster.shell import ClusterError, run, wait_until
from tests.cluster.tools import path_of
from tests.integration.conftest import REPOSITORY
from tests.unit.operator.api.runs import resource

CHART = REPOSITORY / "deploy" / "chart" / "falcon-operator"
NAMESPACE, RELEASE = "falcon-system", "falcon-operator"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
CRD = "crd/falconfinetunes.falcon-finetune.dev"


@dataclass(frozen=True)
class Helm:
    """helm on one cluster."""

    kubeconfig: Path

    def __call__(self, *words: str) -> str:
        return run(
            [path_of("helm"), f"--kubeconfig={self.kubeconfig}", f"--namespace={NAMESPACE}", *words], timeout=120
        )

    def install(self, *words: str) -> str:
        """Installs or upgrades the release and waits until its pods are ready."""
        return self("upgrade", "--install", RELEASE, str(CHART), "--reset-values", "--wait", "--timeout=60s", *words)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without the CRD: the chart brings it."""
    with ControlPlane(tmp_path_factory.mktemp("chart"), fake_nodes=2) as cluster:
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        for name in ("team-a", "team-b"):
            cluster.kubectl("create", "namespace", name)
        yield cluster


@pytest.fixture(scope="module")
def helm(cluster: ControlPlane) -> Helm:
    return Helm(cluster.kubeconfig)


@pytest.fixture(scope="module")
def installed(cluster: ControlPlane, helm: Helm) -> Kubectl:
    """kubectl on a cluster with the chart's default values."""
    helm.install()
    return cluster.kubectl


@pytest.fixture(scope="module")
def namespaced(installed: Kubectl, helm: Helm) -> Kubectl:
    """kubectl on a cluster whose operator serves team-a alone; for the tests at the end of this file."""
    helm.install("--set=namespaces={team-a}", "--set=rbac.aggregate=false")
    return installed


def allowed(kubectl: Kubectl, who: str, what: str, verbs: Sequence[str], namespace: str, name: str = "") -> list[str]:
    """Those of `verbs` that `who` may; `what` is GROUP/RESOURCE or GROUP/RESOURCE/SUBRESOURCE, the core group empty."""
    group, resource_name, subresource = (*what.split("/"), "")[:3]
    asked = {
        "group": group,
        "resource": resource_name,
        "subresource": subresource,
        "namespace": namespace,
        "name": name,
    }
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    reviews = [kind | {"spec": {"user": who, "resourceAttributes": asked | {"verb": verb}}} for verb in verbs]
    documents = "\n---\n".join(json.dumps(review) for review in reviews)
    answer = kubectl("create", "-f", "-", "-o", "jsonpath={.status.allowed} ", stdin=documents)
    return [verb for verb, word in zip(verbs, answer.split(), strict=True) if word == "true"]


def test_the_operators_pods_are_admitted_by_the_restricted_profile_and_lie_apart(installed: Kubectl) -> None:
    pods = installed.get("-n", NAMESPACE, "pods", "-l", f"app.kubernetes.io/instance={RELEASE}")["items"]
    running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    assert len(running) == 2
    assert len({pod["spec"]["nodeName"] for pod in running}) == 2


ALLOWED = {
    "falcon-finetune.dev/falconfinetunes": ["get", "list", "watch"],
    "falcon-finetune.dev/falconfinetunes/status": ["update"],
    "falcon-finetune.dev/falconfinetunes/finalizers": ["update"],
    "batch/jobs": ["get", "list", "watch", "create", "patch", "delete"],
    "apps/deployments": ["get", "list", "watch", "create", "patch", "delete"],
    "policy/poddisruptionbudgets": ["get", "create", "patch", "delete"],
    "/services": ["get", "list", "watch", "create", "patch", "delete"],
    "/configmaps": ["get", "create"],
    "/persistentvolumeclaims": ["get", "list", "watch", "create"],
    "/pods": ["get", "list", "watch", "delete"],
    "/events": ["get", "list", "create"],
    "/secrets": [],
    "/pods/exec": [],
    "/pods/log": [],
    "/serviceaccounts": [],
    "/serviceaccounts/token": [],
    "/nodes": [],
    "rbac.authorization.k8s.io/roles": [],
    "coordination.k8s.io/leases": [],
}
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]


@pytest.mark.parametrize("what", ALLOWED)
def test_the_operator_may_do_exactly_what_it_needs(installed: Kubectl, what: str) -> None:
    assert set(allowed(installed, OPERATOR, what, VERBS, "team-b")) == set(ALLOWED[what])


def test_the_operator_holds_its_own_lease_and_no_other(installed: Kubectl) -> None:
    leases = "coordination.k8s.io/leases"
    assert allowed(installed, OPERATOR, leases, VERBS, NAMESPACE, RELEASE) == ["get", "create", "update"]
    assert allowed(installed, OPERATOR, leases, ["get", "update"], NAMESPACE, "another") == []


def test_who_may_edit_a_namespace_may_handle_its_runs(installed: Kubectl) -> None:
    runs, status = "falcon-finetune.dev/falconfinetunes", "falcon-finetune.dev/falconfinetunes/status"
    for user, role in (("ann", "edit"), ("bob", "view")):
        installed("-n", "team-a", "create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}")

    def aggregated() -> bool:
        return all(allowed(installed, user, runs, ["get"], "team-a") for user in ("ann", "bob"))

    wait_until(aggregated, timeout=20, what="the roles to be aggregated")
    assert allowed(installed, "ann", runs, VERBS, "team-a") == VERBS
    assert allowed(installed, "ann", status, ["update", "patch"], "team-a") == []
    assert allowed(installed, "bob", runs, VERBS, "team-a") == ["get", "list", "watch"]
    assert allowed(installed, "ann", runs, VERBS, "team-b") == []


def test_an_uninstall_keeps_the_crd_and_every_run_and_the_chart_comes_back(installed: Kubectl, helm: Helm) -> None:
    run_of_a = resource("kept") | {"metadata": {"name": "kept", "namespace": "team-a"}}
    wait_until(lambda: installed.succeeds("get", "fft", "-A"), timeout=30, what="the API server to serve the CRD")
    installed.apply(run_of_a)
    helm("uninstall", RELEASE, "--wait")
    assert installed("-n", "team-a", "get", "fft", "-o", "name").strip().endswith("/kept")
    assert not installed.succeeds("-n", NAMESPACE, "get", "deployment", RELEASE)
    helm.install()
    assert installed("get", CRD, "-o", "name")
    installed("-n", "team-a", "delete", "fft", "kept")


def test_a_misspelt_value_is_refused(helm: Helm) -> None:
    with pytest.raises(ClusterError, match="replica"):
        helm("template", RELEASE, str(CHART), "--set=replica=3")


def test_lint_has_nothing_to_say(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def test_the_environment_tells_the_operator_its_settings(helm: Helm) -> None:
    words = [
        "--set=namespaces={a,b}",
        "--set=trainerImage.repository=r/t,trainerImage.pullPolicy=Never,logLevel=DEBUG",
        "--set-string=trainerImage.tag=7,vllmImage.tag=8",
        "--set=vllmImage.repository=r/v",
    ]
    rendered = helm("template", RELEASE, str(CHART), *words, "--show-only=templates/deployment.yaml")
    container = yaml.safe_load(rendered)["spec"]["template"]["spec"]["containers"][0]
    told = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert told == {
        "FALCON_TRAINER_IMAGE": "r/t:7",
        "FALCON_VLLM_IMAGE": "r/v:8",
        "FALCON_IMAGE_PULL_POLICY": "Never",
        "FALCON_NAMESPACES": "a,b",
        "FALCON_LOG_LEVEL": "DEBUG",
        "FALCON_LEASE": RELEASE,
        "POD_NAME": None,
        "POD_NAMESPACE": None,
    }


def test_the_plain_manifests_are_the_charts(tmp_path: Path) -> None:
    written = tmp_path / "operator.yaml"
    run([REPOSITORY / "deploy" / "render", written], env=os.environ | {"HELM": str(path_of("helm"))})
    committed = REPOSITORY / "deploy" / "operator.yaml"
    assert written.read_text() == committed.read_text(), "deploy/operator.yaml is out of date: run deploy/render"


def test_the_plain_manifests_can_be_applied(installed: Kubectl) -> None:
    manifests = str(REPOSITORY / "deploy" / "operator.yaml")
    installed("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", manifests)


def test_an_operator_of_one_namespace_may_act_there_alone(namespaced: Kubectl) -> None:
    for what in ("batch/jobs", "falcon-finetune.dev/falconfinetunes", "/pods"):
        assert set(allowed(namespaced, OPERATOR, what, VERBS, "team-a")) == set(ALLOWED[what])
        assert allowed(namespaced, OPERATOR, what, VERBS, "team-b") == []
    roles = namespaced("get", "clusterroles", "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name")
    assert roles == ""
