"""Faults that tests put into the local cluster: a node that loses power, an API server that restarts.

from tests.cluster import faults

faults.kill_node("node-1")          # containers, shims, containerd and kubelet die at once; NotReady after about 45 s
faults.start_node("node-1")         # back; Ready within seconds, its containers are found dead
faults.stop_kubelet("node-1")       # the node is cut off, its containers run on
faults.restart_api_server()         # watches break
"""

from tests.cluster.local import LocalCluster


def kill_node(name: str) -> None:
    """Cut the node's power."""
    LocalCluster().node(name).kill()


def start_node(name: str, *, timeout: float = 90.0) -> None:
    """Bring a killed or cut-off node back and wait until it is Ready."""
    cluster = LocalCluster()
    node = cluster.node(name)
    node.start()
    node.wait_heartbeat(timeout=timeout)


def stop_kubelet(name: str) -> None:
    """Cut the node off from the control plane; what runs on it runs on."""
    LocalCluster().node(name).process("kubelet").kill()


def restart_api_server() -> None:
    """Kill the API server, start it again, wait until it is ready."""
    LocalCluster().control_plane.restart_api_server()
