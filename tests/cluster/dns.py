"""CoreDNS as a process of the host, on the bridge; pods have it as their only name server."""

from string import Template

from tests.cluster import network
from tests.cluster.controlplane import ControlPlane
from tests.cluster.paths import TEMPLATES
from tests.cluster.processes import Process
from tests.cluster.tools import path_of

_USER = "system:coredns"


def start(control_plane: ControlPlane) -> Process:
    """Start CoreDNS beside the control plane, unless it runs."""
    process = control_plane.process("coredns")
    if not process.alive:
        _allow(control_plane)
        kubeconfig = control_plane.component_kubeconfig("coredns", _USER)
        template = Template((TEMPLATES / "Corefile").read_text())
        corefile = control_plane.folder / "Corefile"
        corefile.write_text(template.substitute(ADDRESS=network.ADDRESS, KUBECONFIG=str(kubeconfig)))
        process.start([*control_plane.wrapper, path_of("coredns"), "-conf", corefile])
    return process


def _allow(control_plane: ControlPlane) -> None:
    """What CoreDNS must read: names of services, pods and namespaces."""
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    control_plane.kubectl.apply(
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": _USER}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": _USER},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": _USER},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": _USER}],
        },
    )
