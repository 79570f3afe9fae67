"""Whether a gang that is not whole gives back the nodes that some of its pods hold.

Two gangs that each hold half of a cluster would wait for ever, and keep everybody else out. Nobody sees all gangs of a
cluster, so each decides for itself: it waits its time, gives up, and comes back after a pause. Time and pause differ by
run, so that one of the two gives up first and the other finds room.
"""

import hashlib
from collections.abc import Iterable

from falcon_operator.objects import Object, being_deleted, condition, status

REASON = "GangNotScheduled"


def given_up(pods: Iterable[Object], waited: float, timeout: float, uid: str) -> bool:
    """Whether a gang that waited so many seconds releases its nodes. One that holds no node keeps nobody out, and one
    whose pods all have a node only needs time.
    """
    if waited < timeout * (1.0 + spread(uid) / 2):
        return False
    found = [pod for pod in pods if not being_deleted(pod) and status(pod).get("phase") in ("Pending", "Running")]
    return any(map(_placed, found)) and any(map(_unschedulable, found))


def spread(uid: str) -> float:
    """A number from 0 to 1 that is the run's own."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4]) / 0xFFFFFFFF


def _placed(pod: Object) -> bool:
    return bool((pod.get("spec") or {}).get("nodeName"))


def _unschedulable(pod: Object) -> bool:
    found = condition(pod, "PodScheduled")
    return found is not None and found["status"] == "False" and found.get("reason") == "Unschedulable"
