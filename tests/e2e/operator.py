"""The operator as a victim."""

import json

from examples.demo.install import OPERATOR_NAMESPACE
from examples.demo.kube import Kubectl, Manifest


def leader() -> str:
    """Name of the operator pod that holds the Lease; empty while none does."""
    leases = json.loads(Kubectl(OPERATOR_NAMESPACE)("get", "leases", "-o", "json"))["items"]
    return next((lease["spec"].get("holderIdentity") or "" for lease in leases), "")


def kill_leader() -> str:
    """Kills the leading operator pod as a crash would, without a chance to give its Lease back; returns its name."""
    kubectl, name = Kubectl(OPERATOR_NAMESPACE), leader().split("_")[0]
    assert name, "no operator leads"
    kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")
    return name


def leaders_pod() -> Manifest:
    """The leading operator pod."""
    pod = Kubectl(OPERATOR_NAMESPACE).get("pod", leader().split("_")[0])
    assert pod, "no operator leads"
    return pod
