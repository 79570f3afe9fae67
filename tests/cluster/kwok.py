"""Nodes played by kwok, for tests that need real Jobs, Deployments and garbage collection but no containers.

A pod that is bound to a fake node becomes Running and Ready within a second, keeps running, and vanishes when deleted.
A test plays its container's fate with annotations of the pod (`kubectl annotate`, a patch, or a pod template):

    kwok.falcon-finetune.dev/exit-code: "65"    every container ends so; the phase becomes Failed (0: Succeeded)
    kwok.falcon-finetune.dev/message: "…"       beside it: the termination message
    kwok.falcon-finetune.dev/hold: start        the pod stays Pending until the annotation is removed
    kwok.falcon-finetune.dev/hold: stop         once deleted it stays Terminating until then, as on a dead node

Anything finer (waiting reasons, conditions such as DisruptionTarget) a test patches into the pod's status itself; kwok
leaves it alone.
"""

from pathlib import Path

from tests.cluster.kubectl import Kubectl
from tests.cluster.paths import TEMPLATES
from tests.cluster.shell import Word, wait_until
from tests.cluster.tools import path_of

_LABEL = "type=kwok"


def command(kubeconfig: Path) -> list[Word]:
    """The kwok process that plays every node of the cluster and renews its Lease."""
    return [
        path_of("kwok"),
        f"--kubeconfig={kubeconfig}",
        f"--config={TEMPLATES / 'kwok-stages.yaml'}",
        "--manage-all-nodes=true",
        "--node-lease-duration-seconds=40",
        "--node-ip=127.0.0.1",
        "--server-address=",
    ]


def create_nodes(kubectl: Kubectl, count: int, gpus: int) -> None:
    """Create `node-0` … with room for everything and `gpus` GPUs each; existing ones stay."""
    room = {"cpu": "1000", "memory": "1Ti", "pods": "10000", "ephemeral-storage": "1Ti", "nvidia.com/gpu": str(gpus)}
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": f"node-{index}",
                "labels": {"type": "kwok", "kubernetes.io/hostname": f"node-{index}", "kubernetes.io/os": "linux"},
            },
            "status": {"allocatable": room, "capacity": room},
        }
        for index in range(count)
    ]
    kubectl.apply(*nodes)


def wait_for_nodes(kubectl: Kubectl, count: int) -> None:
    """Wait until `count` fake nodes are Ready, so that the first pod of a test is scheduled at once."""
    path = '{.items[*].status.conditions[?(@.type=="Ready")].status}'

    def ready() -> bool:
        return kubectl("get", "nodes", f"-l{_LABEL}", f"-ojsonpath={path}").split().count("True") >= count

    wait_until(ready, timeout=60, what=f"{count} fake nodes to be Ready")
