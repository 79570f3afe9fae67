"""One snapshot of a run: the resource, and those of its children that its present stage depends on, read from the API.

Read and not remembered: a watch may have lost a deletion, and what is decided here (a new attempt, a fault that counts)
cannot be taken back.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from falcon_operator.api.names import ATTEMPT_LABEL, KIND, RUN_LABEL, STAGE_LABEL, StageName
from falcon_operator.api.resource import FalconFineTune, InvalidResourceError, Metadata
from falcon_operator.api.status import FalconFineTuneStatus
from falcon_operator.controller.flow.children import attempts_of, current_stage, newest_attempt, references
from falcon_operator.controller.flow.gang import rank_zero
from falcon_operator.controller.flow.pending import any_runs
from falcon_operator.controller.flow.serve import available
from falcon_operator.controller.flow.snapshot import Reference, Snapshot, reference
from falcon_operator.controller.kube import Kube
from falcon_operator.objects import Key, Object, owned_by, status, uid
from falcon_operator.progress import ProgressReader
from falcon_operator.stages.naming import stage_name, train_job_name
from falcon_operator.stages.settings import StageSettings
from falcon_trainer.progress import Progress

PODS_WITH_EVENTS = 3
"""Waiting pods whose Events are read: the pods of a gang wait for the same reason."""


@dataclass(frozen=True)
class Observation:
    """The resource as the API sent it, and the snapshot."""

    raw: Object
    snapshot: Snapshot


class Observer:
    """Makes snapshots."""

    def __init__(self, kube: Kube, settings: StageSettings, progress: ProgressReader) -> None:
        self._kube, self._settings, self._progress = kube, settings, progress

    async def observe(self, key: Key) -> Observation | None:
        """The run as it is now; None where there is none."""
        raw = await self._kube.get(KIND, key.namespace, key.name)
        if raw is None:
            return None
        metadata = Metadata.model_validate(raw["metadata"])
        try:
            run = FalconFineTune.parse(raw)
        except InvalidResourceError as error:
            told = FalconFineTuneStatus.model_validate(raw.get("status") or {})
            return Observation(raw, Snapshot(metadata=metadata, status=told, run=None, problems=error.problems))
        if metadata.deletion_timestamp is not None or run.status.accepted_spec_hash is None:
            return Observation(raw, Snapshot(metadata=metadata, status=run.status, run=run))
        return Observation(raw, await self._children(key, metadata, run))

    async def _children(self, key: Key, metadata: Metadata, run: FalconFineTune) -> Snapshot:
        stage = current_stage(run)
        attempts = attempts_of(run, await self._train_jobs(run)) if stage == "train" else {}
        newest = newest_attempt(run.status, attempts)
        objects = await self._objects(key, references(run, self._settings, stage, newest))
        pods = await self._pods(run, stage, newest, objects)
        unseen = objects.get(Reference("Job", train_job_name(run, newest + 1)))
        if stage == "train" and unseen and owned_by(unseen, run.metadata.uid):
            attempts[newest + 1] = unseen  # somebody took its label away
        return Snapshot(
            metadata=metadata,
            status=run.status,
            run=run,
            objects=objects,
            attempts=attempts,
            pods=pods,
            events=await self._events(key, _parents(run, stage, objects, attempts), pods),
            progress=self._said(key, stage, pods),
        )

    async def _train_jobs(self, run: FalconFineTune) -> list[Object]:
        return await self._kube.find("Job", run.namespace, labels=f"{RUN_LABEL}={run.name},{STAGE_LABEL}=train")

    async def _objects(self, key: Key, names: Iterable[Reference]) -> dict[Reference, Object]:
        found = await asyncio.gather(*(self._kube.get(each.kind, key.namespace, each.name) for each in names))
        return {reference(obj): obj for obj in found if obj is not None}

    async def _pods(
        self, run: FalconFineTune, stage: StageName | None, attempt: int, objects: dict[Reference, Object]
    ) -> list[Object]:
        if stage is None or (stage == "train" and attempt == 0):
            return []
        if stage == "serve":
            deployment = objects.get(Reference("Deployment", stage_name(run, "serve")))
            if deployment is None or available(deployment):
                return []
        labels = f"{RUN_LABEL}={run.name},{STAGE_LABEL}={stage}"
        if stage == "train":
            labels += f",{ATTEMPT_LABEL}={attempt}"
        return await self._kube.find("Pod", run.namespace, labels=labels)

    async def _events(self, key: Key, parents: list[Object], pods: list[Object]) -> list[Object]:
        """Warnings about what keeps a stage without running pods from starting."""
        if not parents or any_runs(pods) or any(status(pod).get("phase") == "Succeeded" for pod in pods):
            return []
        waiting = [pod for pod in pods if status(pod).get("phase") == "Pending"][:PODS_WITH_EVENTS]
        found = await asyncio.gather(
            *(
                self._kube.find("CoreEvent", key.namespace, fields=f"involvedObject.uid={uid(about)},type=Warning")
                for about in [*parents, *waiting]
            )
        )
        return [event for events in found for event in events]

    def _said(self, key: Key, stage: StageName | None, pods: list[Object]) -> Progress | None:
        running = [pod for pod in pods if status(pod).get("phase") == "Running"]
        pod = rank_zero(running) if stage == "train" else next(iter(running), None)
        return self._progress.latest(key, pod) if pod else None


def _parents(
    run: FalconFineTune, stage: StageName | None, objects: dict[Reference, Object], attempts: dict[int, Object]
) -> list[Object]:
    """What has Events of its own while its pods do not run: what makes them, and the claim until it is bound."""
    if stage == "train":
        return [attempts[max(attempts)]] if attempts else []
    if stage is None:
        return []
    maker = objects.get(Reference("Deployment" if stage == "serve" else "Job", stage_name(run, stage)))
    claims = [obj for ref, obj in objects.items() if ref.kind == "PersistentVolumeClaim"]
    pending = [claim for claim in claims if status(claim).get("phase") == "Pending"]
    return [maker, *pending] if maker else []
