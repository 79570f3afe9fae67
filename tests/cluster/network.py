"""The network of the local cluster: one bridge that is the control plane's address, one veth pair for each node.

    host            falcon0 10.213.0.1        API server, CoreDNS
    node K          eth0    10.213.0.(10+K)   pods 10.214.K.0/24, each pod routed by its node (CNI plugin ptp)
    services        10.215.0.0/16             kube-proxy in each node; from the host through the first node

Nothing is forwarded to the world outside: pods reach each other, the API server and the DNS, as tests want it.
Interfaces and routes vanish with the namespaces and the bridge.
"""

import json
from pathlib import Path

from tests.cluster.shell import run, succeeds

BRIDGE = "falcon0"
_CABLE = "falcon-n"
ADDRESS = "10.213.0.1"
PODS = "10.214.0.0/16"
SERVICES = "10.215.0.0/16"
_FORWARD_RULE = (
    "-i",
    BRIDGE,
    "-o",
    BRIDGE,
    "-m",
    "comment",
    "--comment",
    "falcon-finetune test cluster",
    "-j",
    "ACCEPT",
)


def node_address(index: int) -> str:
    return f"10.213.0.{10 + index}"


def pod_range(index: int) -> str:
    return f"10.214.{index}.0/24"


def owner() -> str | None:
    """The folder of the cluster that the bridge belongs to (kept as its alias); None when there is no bridge."""
    if not _exists(BRIDGE):
        return None
    links = json.loads(run(["ip", "-json", "link", "show", "dev", BRIDGE]))
    return str(links[0].get("ifalias", ""))


def _exists(link: str) -> bool:
    return succeeds(["ip", "link", "show", "dev", link])


def create_bridge(state: Path) -> None:
    """Make the bridge of the cluster in `state`, unless it is there."""
    if owner() is not None:
        return
    run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "link", "set", BRIDGE, "alias", str(state)])
    run(["ip", "address", "add", f"{ADDRESS}/24", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    _allow_between_nodes()


def _allow_between_nodes() -> None:
    """Where a container engine made the host drop what it forwards, frames between our nodes are dropped too."""
    if succeeds(["iptables", "-S", "FORWARD"]) and "-P FORWARD DROP" in run(["iptables", "-S", "FORWARD"]):
        run(["iptables", "-I", "FORWARD", *_FORWARD_RULE])


def remove() -> None:
    """Remove the bridge, the cables and the rule; routes go with them."""
    veths = json.loads(run(["ip", "-json", "link", "show", "type", "veth"]) or "[]")
    for veth in (entry.get("ifname", "") for entry in veths):
        if veth.startswith(_CABLE):  # the kernel removes them too, some time after their namespaces
            succeeds(["ip", "link", "delete", veth])
    if _exists(BRIDGE):
        run(["ip", "link", "delete", BRIDGE])
    while succeeds(["iptables", "-C", "FORWARD", *_FORWARD_RULE]):
        run(["iptables", "-D", "FORWARD", *_FORWARD_RULE])


def connect(index: int, holder: int, nodes: int) -> None:
    """Give the namespace of process `holder` the address of node `index` and routes to the pods of all `nodes`."""
    link, inside = f"{_CABLE}{index}", ["nsenter", f"--net=/proc/{holder}/ns/net"]
    if _exists(link):  # the other end's namespace is still being taken down
        run(["ip", "link", "delete", link])
    run(["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(holder)])
    run(["ip", "link", "set", link, "master", BRIDGE, "up"])
    run([*inside, "ip", "link", "set", "lo", "up"])
    run([*inside, "ip", "address", "add", f"{node_address(index)}/24", "dev", "eth0"])
    run([*inside, "ip", "link", "set", "eth0", "up"])
    run([*inside, "ip", "route", "add", "default", "via", ADDRESS])
    run([*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
    for other in range(nodes):
        if other != index:
            run([*inside, "ip", "route", "replace", pod_range(other), "via", node_address(other)])
    run(["ip", "route", "replace", pod_range(index), "via", node_address(index)])
    if index == 0:
        run(["ip", "route", "replace", SERVICES, "via", node_address(index)])
