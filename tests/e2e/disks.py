"""A workspace that is really full after a few megabytes: a tmpfs on one node of the local cluster.

The provisioner of the test cluster hands out folders of one disk, whatever size a claim asks for.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from examples.demo.kube import Kubectl, Manifest, command
from tests.cluster import faults


def disk_path(kubectl: Kubectl, name: str) -> str:
    """Where the disk of a claim is mounted on its node."""
    return f"/run/falcon-disks/{kubectl.namespace}-{name}"


@contextmanager
def small_disk(kubectl: Kubectl, name: str, *, node: str, megabytes: int) -> Iterator[None]:
    """The claim `name`, bound to a volume of `megabytes` on `node`, until the block ends."""
    path, volume = disk_path(kubectl, name), f"{kubectl.namespace}-{name}"
    faults.mount_small_disk(node, path, megabytes=megabytes)
    try:
        kubectl.apply(_volume(volume, path, node), _claim(name, volume))
        yield
    finally:
        command("kubectl", "delete", "persistentvolume", volume, "--ignore-not-found", "--wait=false")
        faults.unmount_disk(node, path)


SIZE = {"storage": "1Gi"}
MODES = ["ReadWriteOnce"]


def _volume(name: str, path: str, node: str) -> Manifest:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": SIZE,
            "accessModes": MODES,
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def _claim(name: str, volume: str) -> Manifest:
    spec = {"accessModes": MODES, "storageClassName": "", "volumeName": volume, "resources": {"requests": SIZE}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
