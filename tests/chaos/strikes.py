"""Carries strikes out on the local cluster."""

import signal
from collections.abc import Callable, Sequence

from examples.demo.kube import Kubectl, Manifest
from tests.chaos.plan import Fault, Strike
from tests.cluster import faults
from tests.e2e.gang import node_of, signal_rank, train_pods
from tests.e2e.operator import kill_leader


def strike(kubectl: Kubectl, run: str, attempt: int, planned: Strike) -> str:
    """Lets the fault happen to this attempt; returns what was hit."""
    pods = train_pods(kubectl, run, attempt)
    return ACTS[planned.fault](kubectl, pods, planned.rank)


def _delete_pod(kubectl: Kubectl, pods: Sequence[Manifest], rank: int) -> str:
    name = str(pods[rank]["metadata"]["name"])
    kubectl("delete", "pod", name, "--wait=false")
    return name


def _kill_rank(kubectl: Kubectl, pods: Sequence[Manifest], rank: int) -> str:
    signal_rank(kubectl, pods[rank], rank, signal.SIGKILL)
    return f"rank {rank}"


def _kill_node(kubectl: Kubectl, pods: Sequence[Manifest], rank: int) -> str:
    node = node_of(pods[rank])
    faults.kill_node(node)
    return node


def _kill_operator(kubectl: Kubectl, pods: Sequence[Manifest], rank: int) -> str:
    return kill_leader()


def _restart_api_server(kubectl: Kubectl, pods: Sequence[Manifest], rank: int) -> str:
    faults.restart_api_server()
    return "the API server"


ACTS: dict[Fault, Callable[[Kubectl, Sequence[Manifest], int], str]] = {
    Fault.POD_DELETED: _delete_pod,
    Fault.RANK_KILLED: _kill_rank,
    Fault.NODE_LOST: _kill_node,
    Fault.OPERATOR_KILLED: _kill_operator,
    Fault.API_SERVER_RESTARTED: _restart_api_server,
}
"""Each gang has one rank a pod and one pod a node."""
