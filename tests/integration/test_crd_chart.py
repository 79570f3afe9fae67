"""The Helm chart, installed for real: what the operator may do, what an upgrade and an uninstall leave behind."""

import os
from collections.abc import Iterator
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
        return self("upgrade", "--install", RELEASE, str(CHART), "--wait", "--timeout=60s", *words)


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


@pytest.fixture
def installed(cluster: ControlPlane, helm: Helm) -> Kubectl:
    """kubectl on a cluster with the chart's default values."""
    helm.install()
    return cluster.kubectl


@pytest.fixture
def namespaced(cluster: ControlPlane, helm: Helm) -> Kubectl:
    """kubectl on a cluster whose operator serves team-a alone."""
    helm.install("--set=namespaces={team-a}", "--set=rbac.aggregate=false")
    return cluster.kubectl


def may(kubectl: Kubectl, who: str, verb: str, what: str, namespace: str) -> bool:
    words = ("auth", "can-i", verb, what, f"--as={who}", f"--namespace={namespace}")
    return kubectl.succeeds(*words)


def test_the_operators_pods_are_admitted_by_the_restricted_profile_and_lie_apart(installed: Kubectl) -> None:
    pods = installed.get("-n", NAMESPACE, "pods", "-l", f"app.kubernetes.io/instance={RELEASE}")["items"]
    running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    assert len(running) == 2
    assert len({pod["spec"]["nodeName"] for pod in running}) == 2


ALLOWED = {
    "falconfinetunes": ["get", "list", "watch"],
    "falconfinetunes/status": ["update"],
    "jobs": ["get", "list", "watch", "create", "delete"],
    "deployments": ["get", "list", "watch", "create", "patch", "delete"],
    "services": ["get", "list", "watch", "create", "patch", "delete"],
    "configmaps": ["get", "list", "create", "delete"],
    "persistentvolumeclaims": ["get", "list", "watch", "create"],
    "pods": ["get", "list", "watch"],
    "events": ["get", "list"],
    "events.events.k8s.io": ["create", "patch"],
}
REFUSED = {
    "secrets": ["get", "list", "watch", "create", "update", "patch", "delete"],
    "pods": ["create", "update", "patch", "delete"],
    "pods/exec": ["create"],
    "jobs": ["patch", "update"],
    "configmaps": ["patch", "update"],
    "persistentvolumeclaims": ["delete", "patch", "update"],
    "falconfinetunes": ["create", "patch", "update", "delete"],
    "serviceaccounts": ["get"],
    "serviceaccounts/token": ["create"],
    "roles": ["create"],
    "nodes": ["get"],
    "leases": ["get", "create"],
}


@pytest.mark.parametrize("what", ALLOWED)
def test_the_operator_may(installed: Kubectl, what: str) -> None:
    assert [verb for verb in ALLOWED[what] if not may(installed, OPERATOR, verb, what, "team-b")] == []


@pytest.mark.parametrize("what", REFUSED)
def test_the_operator_may_not(installed: Kubectl, what: str) -> None:
    assert [verb for verb in REFUSED[what] if may(installed, OPERATOR, verb, what, "team-b")] == []


def test_the_operator_holds_its_own_lease_and_no_other(installed: Kubectl) -> None:
    assert may(installed, OPERATOR, "update", f"lease/{RELEASE}", NAMESPACE)
    assert not may(installed, OPERATOR, "update", "lease/another", NAMESPACE)


def test_an_operator_of_one_namespace_may_act_there_alone(namespaced: Kubectl) -> None:
    assert may(namespaced, OPERATOR, "create", "jobs", "team-a")
    assert may(namespaced, OPERATOR, "list", "falconfinetunes", "team-a")
    assert not may(namespaced, OPERATOR, "create", "jobs", "team-b")
    assert not may(namespaced, OPERATOR, "list", "falconfinetunes", "team-b")
    roles = namespaced("get", "clusterroles", "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name")
    assert roles == ""


def test_who_may_edit_a_namespace_may_handle_its_runs(installed: Kubectl) -> None:
    installed("-n", "team-a", "create", "rolebinding", "ann", "--clusterrole=edit", "--user=ann")
    installed("-n", "team-a", "create", "rolebinding", "bob", "--clusterrole=view", "--user=bob")
    wait_until(lambda: may(installed, "ann", "create", "fft", "team-a"), timeout=20, what="the roles to be aggregated")
    wait_until(lambda: may(installed, "bob", "get", "fft", "team-a"), timeout=20, what="the roles to be aggregated")
    assert not may(installed, "bob", "create", "fft", "team-a")
    assert not may(installed, "ann", "update", "fft/status", "team-a")
    assert not may(installed, "ann", "get", "fft", "team-b")


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
    words = ("--set=trainerImage.repository=r/t,trainerImage.tag=7,trainerImage.pullPolicy=Never,logLevel=DEBUG",)
    rendered = helm(
        "template", RELEASE, str(CHART), "--set=namespaces={a,b}", *words, "--show-only=templates/deployment.yaml"
    )
    container = yaml.safe_load(rendered)["spec"]["template"]["spec"]["containers"][0]
    told = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert told == {
        "FALCON_TRAINER_IMAGE": "r/t:7",
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
