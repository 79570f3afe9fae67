"""Integration: a real etcd, API server, controller-manager and scheduler; two nodes of one GPU each, played by kwok."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.cluster.shell import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


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
