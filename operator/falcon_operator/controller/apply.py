"""Carries out a Plan: Events, status, deletions, changes, writes, in this order.

The status goes before the children, under the resourceVersion of what was looked at: if anything changed since, nothing
is done and the run is looked at anew.
"""

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from falcon_operator.api.status import rfc3339
from falcon_operator.controller.flow.children import APPLIED
from falcon_operator.controller.flow.report import Occasion, Plan
from falcon_operator.controller.kube import REFUSALS, ApiError, Kube
from falcon_operator.controller.observe import Observation
from falcon_operator.objects import Object, uid

COMPONENT = "falcon-operator"
LONGEST_MESSAGE = 1024
LONGEST_WORD = 128

log = logging.getLogger(__name__)


class ChildRefusedError(Exception):
    """The API server refuses a child as it is: a person must change the spec, a quota, a policy or a permission."""


class Applier:
    """Writes to the API; `instance` is the replica that Events name."""

    def __init__(self, kube: Kube, instance: str) -> None:
        self._kube, self._instance = kube, instance
        self._refusals: dict[str, str] = {}

    def refusal(self, run: Object) -> str | None:
        """Why the last child of the run could not be written; None where it could."""
        return self._refusals.get(uid(run))

    async def apply(self, seen: Observation, plan: Plan) -> bool:
        """Whether everything was done; False where the world has moved on and the run must be looked at anew.

        Raises ChildRefusedError.
        """
        for occasion in plan.occasions:
            await self._tell(seen.raw, occasion)
        if plan.status is not None:
            wanted = {name: value for name, value in seen.raw.items() if name != "status"}
            if await self._kube.write_status(wanted | {"status": plan.status.to_wire()}) is None:
                return False
        for obj in plan.delete:
            await self._kube.delete(obj)
            log.info("deleted %s %s", obj["kind"], obj["metadata"]["name"], extra=_fields(seen.raw))
        for change in plan.change:
            if not await self._kube.change(change.job, {"spec": dict(change.fields)}):
                return False
            log.info("set %s of Job %s", dict(change.fields), change.job["metadata"]["name"], extra=_fields(seen.raw))
        return await self._write_all(seen.raw, plan.write)

    async def _write_all(self, run: Object, objects: Sequence[Object]) -> bool:
        """Tries each of them: a Job that is refused must not hold up the server of a stage beside it."""
        done, refused = [], []
        for obj in objects:
            try:
                done.append(await self._write(run, obj))
            except ChildRefusedError as error:
                refused.append(error)
        if refused:
            self._refusals[uid(run)] = str(refused[0])
            raise refused[0]
        self._refusals.pop(uid(run), None)
        return all(done)

    async def _write(self, run: Object, obj: Object) -> bool:
        try:
            return await self._put(run, obj)
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            text = f"the API server refuses {obj['kind']} {obj['metadata']['name']}: {error.message}"
            raise ChildRefusedError(text) from error

    async def _put(self, run: Object, obj: Object) -> bool:
        what = f"{obj['kind']} {obj['metadata']['name']}"
        if obj["kind"] in APPLIED:
            await self._kube.apply(obj)
            log.info("applied %s", what, extra=_fields(run))
            return True
        if await self._kube.create(obj) is None:
            return False  # whose it is, is decided when it is seen
        log.info("created %s", what, extra=_fields(run))
        return True

    async def _tell(self, run: Object, occasion: Occasion) -> None:
        """An Event whose name is made from the occasion: telling it again changes nothing. An Event that cannot be
        written is no reason to stop.
        """
        log.info("%s: %s", occasion.reason, occasion.message, extra=_fields(run))
        try:
            await self._kube.create(event(run, occasion, self._instance, datetime.now(UTC)))
        except ApiError as error:
            log.warning("no Event could be written: %s", error, extra=_fields(run))


def event(run: Object, occasion: Occasion, instance: str, now: datetime) -> Object:
    """The Event (core/v1) that tells of `occasion`.

    Not events.k8s.io/v1: `kubectl describe` sorts by the older API's time stamps, which the newer one forbids.
    """
    metadata = run["metadata"]
    digest = hashlib.sha256(f"{uid(run)}/{occasion.identity}".encode()).hexdigest()[:16]
    named = ("name", "namespace", "uid", "resourceVersion")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": metadata["namespace"]},
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "count": 1,
        "type": "Warning" if occasion.warning else "Normal",
        "reason": occasion.reason[:LONGEST_WORD],
        "action": occasion.action[:LONGEST_WORD],
        "message": occasion.message.encode()[:LONGEST_MESSAGE].decode(errors="ignore"),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance[:LONGEST_WORD],
        "involvedObject": {"apiVersion": run["apiVersion"], "kind": run["kind"]}
        | {key: metadata[key] for key in named},
    }


def _fields(run: Object) -> dict[str, str]:
    return {"namespace": run["metadata"]["namespace"], "run": run["metadata"]["name"]}
