"""End to end: real pods of our images on real nodes, through kubectl and helm alone.

KUBECONFIG names the cluster, the two image variables name what was loaded into it; `make test-e2e` sets all three.
Every test run has a namespace of its own, so a demo left running stays.
"""

import os
import secrets
from collections.abc import Iterator

import pytest

from examples.demo.inputs import RESTRICTED, prepare_inputs
from examples.demo.install import install_operator
from examples.demo.kube import Kubectl, command

needs = ("KUBECONFIG", "FALCON_TRAINER_IMAGE", "FALCON_OPERATOR_IMAGE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def operator() -> None:
    """The operator of this checkout, installed from the chart."""
    missing = [name for name in needs if not os.environ.get(name)]
    if missing:
        pytest.fail(f"{', '.join(missing)} not set: run `make test-e2e`, which brings up the cluster and sets them")
    install_operator()


@pytest.fixture(scope="session")
def kubectl(operator: None) -> Iterator[Kubectl]:
    """kubectl in a namespace of this test session that enforces the restricted profile and holds the inputs."""
    kubectl = Kubectl(f"falcon-e2e-{secrets.token_hex(3)}")
    kubectl.ensure_namespace(RESTRICTED)
    prepare_inputs(kubectl, BAD_FILES)
    yield kubectl
    command("kubectl", "delete", "namespace", kubectl.namespace, "--wait=false")


BAD_FILES = {
    "empty.jsonl": "",
    "no-response.jsonl": '{"instruction": "a", "context": "", "response": "b"}\n{"instruction": "c", "context": ""}\n',
    "too-long.jsonl": '{"instruction": "a", "context": "", "response": "b"}\n'
    + '{"instruction": "c", "context": "", "response": "'
    + "long " * 600
    + '"}\n',
}
