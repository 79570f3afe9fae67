"""A cluster in miniature: plans are carried out as `apply` does, and pods succeed with a result of what they were told.

Everything goes one step at a time, so that a test can change the run between any two of them.
"""

import hashlib
import itertools
import json
from typing import Any

from falcon_operator.api.names import StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.controller.flow.children import references
from falcon_operator.controller.flow.course import current_stage, stages_beside
from falcon_operator.controller.flow.report import Plan
from falcon_operator.controller.flow.snapshot import Reference, Sight, Snapshot, reference
from falcon_operator.controller.reconcile import reconcile
from falcon_operator.objects import Object, being_deleted, uid
from falcon_trainer.config import Artifact, RunConfig
from tests.unit.operator.api.runs import laid_over
from tests.unit.operator.controller.snapshots import SETTINGS, finished
from tests.unit.operator.policy.pods import NOW, at, pod

ONE_POD: tuple[StageName, ...] = ("merge", "publish", "evaluate")


class World:
    """One run and its children."""

    def __init__(self, run: FalconFineTune) -> None:
        self.run = run
        self.objects: dict[Reference, Object] = {}
        self.pods: dict[str, list[Object]] = {}
        """Pods by the uid of their Job."""
        self.verified: set[str] = set()
        """Digests of all models that a merge reported."""
        self._uids = itertools.count()

    def change(self, **spec: Any) -> None:
        """A person changes the spec; None takes a field away."""
        wired = laid_over(self.run.spec.to_wire(), spec)
        given = {key: value for key, value in wired.items() if value is not None}
        changed = FalconFineTune.parse({"metadata": self.run.metadata.to_wire(), "spec": given})
        metadata = self.run.metadata.model_copy(update={"generation": self.run.metadata.generation + 1})
        self.run = self.run.model_copy(update={"metadata": metadata, "spec": changed.spec})

    def look(self) -> Plan:
        """One look, and what it leads to."""
        plan = reconcile(self._seen(), SETTINGS, NOW)
        if plan.status is not None:
            self.run = self.run.model_copy(update={"status": plan.status})
        for obj in plan.delete:
            del self.objects[reference(obj)]
            self.pods.pop(uid(obj), None)
        for change in plan.change:
            job = self.objects[reference(change.job)]
            job["spec"] |= change.fields
            self.pods.pop(uid(job), None)
        for obj in plan.write:
            self._write(obj)
        return plan

    def play(self) -> bool:
        """One step of everybody else; whether there was anything to do."""
        return any([self._play_job(stage) for stage in ONE_POD] + [self._play_server()])

    def settle(self, steps: int = 80) -> Plan:
        """Looks and plays until nobody has anything to do; the last plan."""
        for _ in range(steps):
            plan = self.look()
            idle = plan.status is None and not (plan.write or plan.delete or plan.change)
            if not self.play() and idle:
                return plan
        raise AssertionError(f"still busy after {steps} steps: {self.run.status}")

    def served(self) -> Artifact | None:
        """The model that the server's pods are told to serve."""
        deployment = self.objects.get(Reference("Deployment", "r-serve"))
        return self._told(deployment).merged if deployment else None

    def _seen(self) -> Snapshot:
        here, beside = current_stage(self.run), stages_beside(self.run)
        names = references(self.run, SETTINGS, here, 0)
        objects = {name: json.loads(json.dumps(self.objects[name])) for name in names if name in self.objects}
        return Snapshot(
            metadata=self.run.metadata,
            status=self.run.status,
            run=self.run,
            objects=objects,
            pods=self._pods_of(here) if here else [],
            beside={stage: Sight(pods=self._pods_of(stage)) for stage in beside},
        )

    def _pods_of(self, stage: StageName) -> list[Object]:
        job = self.objects.get(Reference("Job", f"r-{stage}"))
        return self.pods.get(uid(job), []) if job else []

    def _write(self, obj: Object) -> None:
        old = self.objects.get(reference(obj))
        assert old is None or obj["kind"] not in ("Job", "ConfigMap"), "what exists is never created again"
        made = {
            "uid": uid(old) if old else f"uid-{next(self._uids)}",
            "generation": old["metadata"]["generation"] + 1 if old else 1,
            "creationTimestamp": at(-60),
            "resourceVersion": "1",
        }
        self.objects[reference(obj)] = laid_over(obj, {"metadata": made, "status": (old or {}).get("status", {})})

    def _play_job(self, stage: StageName) -> bool:
        job = self.objects.get(Reference("Job", f"r-{stage}"))
        if job is None or job["spec"].get("suspend") or being_deleted(job):
            return False
        pods = self.pods.setdefault(uid(job), [])
        if not pods:
            pods.append(pod(f"{stage}-0"))
            return True
        if pods[0]["status"]["phase"] != "Running":
            return False
        pods[0] = finished(f"{stage}-0", self._result(stage, self._told(job)))
        return True

    def _play_server(self) -> bool:
        deployment = self.objects.get(Reference("Deployment", "r-serve"))
        if deployment is None:
            return False
        count = deployment["spec"]["replicas"]
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), count)
        status = {"observedGeneration": deployment["metadata"]["generation"]} | counts
        if deployment["status"] == status:
            return False
        deployment["status"] = status
        return True

    def _told(self, workload: Object) -> RunConfig:
        volumes = workload["spec"]["template"]["spec"]["volumes"]
        (name,) = (volume["configMap"]["name"] for volume in volumes if "configMap" in volume)
        return RunConfig.model_validate_json(self.objects[Reference("ConfigMap", name)]["data"]["run.json"])

    def _result(self, stage: StageName, told: RunConfig) -> dict[str, Any]:
        if stage == "merge":
            model = merged_as(told.merge.dtype)
            self.verified.add(model.digest)
            return {"merged": model.to_wire(), "merge": {"dtype": told.merge.dtype}}
        if stage == "evaluate":
            return {"evaluation": {"prompts": 4, "answered": 4, "changed": 3}}
        copies = []
        for publication in told.publish or []:
            artifact = told.merged if publication.what == "merged" else told.adapter
            assert artifact, "a copy of what is not told"
            copies.append({"uri": publication.uri, "what": publication.what, "digest": artifact.digest})
        return {"published": copies}


def merged_as(dtype: str) -> Artifact:
    """The merged model of a type; the same one each time."""
    digest = hashlib.sha256(dtype.encode()).hexdigest()
    return Artifact(path=f"runs/r/merged/{digest[:8]}", digest=f"sha256:{digest}", bytes=2)
