"""One snapshot of a run: the resource, and those of its children that its present stages depend on, read from the API.

Read and not remembered: a watch may have lost a deletion, and what is decided here (a new attempt, a fault that counts)
cannot be taken back.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from falcon_operator.api.names import ALIAS_LABEL, ATTEMPT_LABEL, KIND, RUN_LABEL, STAGE_LABEL, StageName
from falcon_operator.api.resource import FalconFineTune, InvalidResourceError, Metadata
from falcon_operator.api.status import FalconFineTuneStatus
from falcon_operator.controller.flow.alias import aliases, heirs
from falcon_operator.controller.flow.children import attempts_of, newest_attempt, references
from falcon_operator.controller.flow.course import current_stage, stages_beside
from falcon_operator.controller.flow.gang import rank_zero
from falcon_operator.controller.flow.pending import any_runs
from falcon_operator.controller.flow.serve import available
from falcon_operator.controller.flow.snapshot import Reference, Sight, Snapshot, reference
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

    async def heirs(self, gone: Key) -> list[Key]:
        """The runs that must be looked at because the run `gone` does not exist: they shared a name with it."""
        labels = f"{RUN_LABEL}={gone.name},{ALIAS_LABEL}"
        services = await self._kube.find("Service", gone.namespace, labels=labels)
        return [key for service in services for key in heirs(service, gone)]

    async def _children(self, key: Key, metadata: Metadata, run: FalconFineTune) -> Snapshot:
        stage = current_stage(run)
        attempts = attempts_of(run, await self._train_jobs(run)) if stage == "train" else {}
        newest = newest_attempt(run.status, attempts)
        shared = [Reference("Service", name) for name in aliases(run)]
        objects = await self._objects(key, [*references(run, self._settings, stage, newest), *shared])
        # After the Service: whoever wrote it last has told before that it answers.
        runs = await self._kube.find(KIND, key.namespace) if shared else []
        unseen = objects.get(Reference("Job", train_job_name(run, newest + 1)))
        if stage == "train" and unseen and owned_by(unseen, run.metadata.uid):
            attempts[newest + 1] = unseen  # somebody took its label away
        maker = attempts.get(newest) if stage == "train" else _maker(run, stage, objects)
        here = await self._sight(key, run, stage, maker, objects, newest) if stage else Sight()
        return Snapshot(
            metadata=metadata,
            status=run.status,
            run=run,
            objects=objects,
            attempts=attempts,
            pods=here.pods,
            events=here.events,
            progress=here.progress,
            runs=runs,
            beside={
                each: await self._sight(key, run, each, _maker(run, each, objects), objects)
                for each in stages_beside(run)
            },
        )

    async def _sight(
        self,
        key: Key,
        run: FalconFineTune,
        stage: StageName,
        maker: Object | None,
        objects: dict[Reference, Object],
        attempt: int = 0,
    ) -> Sight:
        pods = await self._pods(run, stage, attempt, maker)
        events = await self._events(key, maker, pods, objects) if maker else []
        return Sight(pods=pods, events=events, progress=self._said(key, stage, pods))

    async def _train_jobs(self, run: FalconFineTune) -> list[Object]:
        return await self._kube.find("Job", run.namespace, labels=f"{RUN_LABEL}={run.name},{STAGE_LABEL}=train")

    async def _objects(self, key: Key, names: Iterable[Reference]) -> dict[Reference, Object]:
        found = await asyncio.gather(*(self._kube.get(each.kind, key.namespace, each.name) for each in names))
        return {reference(obj): obj for obj in found if obj is not None}

    async def _pods(self, run: FalconFineTune, stage: StageName, attempt: int, maker: Object | None) -> list[Object]:
        if (stage == "train" and attempt == 0) or (stage == "serve" and (maker is None or available(maker))):
            return []
        labels = f"{RUN_LABEL}={run.name},{STAGE_LABEL}={stage}"
        if stage == "train":
            labels += f",{ATTEMPT_LABEL}={attempt}"
        pods = await self._kube.find("Pod", run.namespace, labels=labels)
        if maker is None or stage == "serve":
            return pods
        # A Job that was deleted and made again leaves pods behind for a while, which say nothing of the new one.
        return [pod for pod in pods if owned_by(pod, uid(maker))]

    async def _events(
        self, key: Key, maker: Object, pods: list[Object], objects: dict[Reference, Object]
    ) -> list[Object]:
        """Warnings about what keeps a stage without running pods from starting: what makes the pods, the pods, and the
        workspace's claim until it is bound.
        """
        if any_runs(pods) or any(status(pod).get("phase") == "Succeeded" for pod in pods):
            return []
        if maker["kind"] == "Deployment" and available(maker):
            return []
        waiting = [pod for pod in pods if status(pod).get("phase") == "Pending"][:PODS_WITH_EVENTS]
        claims = [obj for name, obj in objects.items() if name.kind == "PersistentVolumeClaim"]
        pending = [claim for claim in claims if status(claim).get("phase") == "Pending"]
        found = await asyncio.gather(
            *(
                self._kube.find("Event", key.namespace, fields=f"involvedObject.uid={uid(about)},type=Warning")
                for about in [maker, *waiting, *pending]
            )
        )
        return [event for events in found for event in events]

    def _said(self, key: Key, stage: StageName, pods: list[Object]) -> Progress | None:
        running = [pod for pod in pods if status(pod).get("phase") == "Running"]
        pod = rank_zero(running) if stage == "train" else next(iter(running), None)
        return self._progress.latest(key, pod) if pod else None


def _maker(run: FalconFineTune, stage: StageName | None, objects: dict[Reference, Object]) -> Object | None:
    """What makes the pods of a stage other than train: its Job or its Deployment."""
    kind = "Deployment" if stage == "serve" else "Job"
    return objects.get(Reference(kind, stage_name(run, stage))) if stage else None
