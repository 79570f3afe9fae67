"""Runs as a user applies them with kubectl."""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.kubectl import Kubectl
from tests.cluster.shell import ClusterError


def in_namespace(obj: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """What a user would write: no uid, no generation, absent fields left out."""
    metadata = {"name": obj["metadata"]["name"], "namespace": namespace}
    return {**obj, "metadata": metadata, "spec": without_none(obj["spec"])}


def without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return value


def apply(kubectl: Kubectl, obj: Mapping[str, Any], *words: str) -> None:
    kubectl("apply", *words, "-f", "-", stdin=json.dumps(obj))


def refusal(kubectl: Kubectl, obj: Mapping[str, Any]) -> str:
    """What `kubectl apply` says."""
    with pytest.raises(ClusterError) as caught:
        apply(kubectl, obj, "--dry-run=server")
    return str(caught.value)


def set_status(kubectl: Kubectl, namespace: str, name: str, status: Mapping[str, Any]) -> None:
    patch = json.dumps({"status": status})
    kubectl("-n", namespace, "patch", "fft", name, "--subresource=status", "--type=merge", "-p", patch)


@contextmanager
def restricted_namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace that enforces the restricted profile, for tests that share it."""
    name = f"test-{secrets.token_hex(4)}"
    enforcing = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": enforcing}})
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
