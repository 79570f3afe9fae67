"""Faults that tests put into the local cluster: a node that loses power, an API server that restarts.

from tests.cluster import faults

faults.kill_node("node-1")          # containers, shims, containerd and kubelet die at once; NotReady after about 45 s
faults.start_node("node-1")         # back; Ready within seconds, its containers are found dead
faults.crash_pod("node-1", uid)     # as a bug or the kernel would end it
faults.stop_kubelet("node-1")       # the node is cut off, its containers run on
faults.restart_api_server()         # watches break
faults.mount_small_disk("node-1", "/run/disk", megabytes=8)   # full soon
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


def crash_pod(node: str, uid: str) -> None:
    """Kill the processes of a pod, which cannot say a word any more; its node starts it anew where it is to be."""
    LocalCluster().node(node).kill_pod(uid)


def stop_kubelet(name: str) -> None:
    """Cut the node off from the control plane; what runs on it runs on."""
    LocalCluster().node(name).process("kubelet").kill()


def restart_api_server() -> None:
    """Kill the API server, start it again, wait until it is ready."""
    LocalCluster().control_plane.restart_api_server()


def mount_small_disk(name: str, path: str, *, megabytes: int) -> None:
    """Mount a file system of this size on a node, open to every user; mounted already, it gets the new size."""
    LocalCluster().node(name).mount_memory(path, megabytes=megabytes)


def unmount_disk(name: str, path: str) -> None:
    """Take it away, though somebody may still use it."""
    LocalCluster().node(name).unmount(path)
