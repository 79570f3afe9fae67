"""Integration: a real etcd, API server, controller-manager and scheduler; two nodes of one GPU each, played by kwok."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.cluster.shell import wait_until
from tests.integration.api import Admin, api_client
from tests.integration.kubelet import Kubelet
from tests.integration.lab import CLAIM, Lab

REPOSITORY = Path(__file__).resolve().parents[2]
OPERATOR = "falcon-operator"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane of this test session, with the CRD of this checkout."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane"), fake_nodes=2) as control_plane:
        kubectl = control_plane.kubectl
        kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        # `kubectl wait` fails on a CRD that has no conditions yet, and an established one answers 429 for a second.
        wait_until(lambda: kubectl.succeeds("get", "fft", "-A"), timeout=30, what="the API server to serve the CRD")
        yield control_plane


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """kubectl as administrator."""
    return control_plane.kubectl


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace of this test, which enforces the restricted profile as careful clusters do."""
    name = f"test-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def operator_kubeconfig(control_plane: ControlPlane, kubectl: Kubectl) -> Path:
    """Credentials of a user with exactly the permissions that the chart gives to the operator."""
    kubectl.apply(*(role for role in _manifests("ClusterRole") if role["metadata"]["name"] == OPERATOR))
    kubectl("create", "clusterrolebinding", "operator-under-test", f"--clusterrole={OPERATOR}", f"--user={OPERATOR}")
    return control_plane.component_kubeconfig(OPERATOR, OPERATOR)


@pytest.fixture
async def lab(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    operator_kubeconfig: Path,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Lab]:
    """A namespace with a claim, pods that are played, and what an operator needs to act there."""
    monkeypatch.setenv("KUBECONFIG", str(operator_kubeconfig))  # kopf looks there
    (leader,) = _manifests("Role")
    leader["metadata"]["namespace"] = namespace
    kubectl.apply(leader, _binding(leader, namespace), *bound_claim(CLAIM, namespace))
    async with api_client(control_plane.kubeconfig) as api:
        admin = Admin(api)
        async with Kubelet(admin, namespace).at_work() as kubelet:
            lab = Lab(admin, namespace, kubelet, operator_kubeconfig, tmp_path)
            yield lab
            for process in lab.processes:
                process.kill()


def bound_claim(name: str, namespace: str) -> list[dict[str, Any]]:
    """A claim and the volume that it is bound to."""
    size, modes = {"storage": "10Gi"}, ["ReadWriteMany"]
    reference = {"name": name, "namespace": namespace}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            "capacity": size,
            "accessModes": modes,
            "storageClassName": "",
            "hostPath": {"path": "/nowhere"},
            "claimRef": reference,
        },
    }
    spec = {"accessModes": modes, "storageClassName": "", "resources": {"requests": size}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": reference, "spec": spec}
    return [volume, claim]


def _manifests(kind: str) -> list[dict[str, Any]]:
    """What the chart installs of one kind."""
    documents = yaml.safe_load_all((REPOSITORY / "deploy" / "operator.yaml").read_text())
    return [document for document in documents if document and document["kind"] == kind]


def _binding(role: dict[str, Any], namespace: str) -> dict[str, Any]:
    name = role["metadata"]["name"]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR}],
    }
