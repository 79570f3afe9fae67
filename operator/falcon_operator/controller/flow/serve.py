"""Serve: a Deployment and its Service, applied anew whenever what we would write differs from what we wrote."""

from dataclasses import replace
from datetime import datetime

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import ConditionType
from falcon_operator.controller.flow import replicas
from falcon_operator.controller.flow.children import Wanting, children, compare, leftovers
from falcon_operator.controller.flow.hold import paused
from falcon_operator.controller.flow.pending import PATIENCE, name_conflict, patience, waiting
from falcon_operator.controller.flow.report import Report
from falcon_operator.controller.flow.snapshot import Reference, Snapshot
from falcon_operator.objects import Object, being_deleted, condition, holds, owned_by, status
from falcon_operator.policy.conditions import Finding
from falcon_operator.stages.naming import endpoint, stage_name
from falcon_operator.stages.settings import StageSettings

KIND = ConditionType.SERVING


def serve(snapshot: Snapshot, run: FalconFineTune, settings: StageSettings, now: datetime) -> Report:
    """The serve stage; it is done while the newest generation of its Deployment is available, and never over."""
    deployment = snapshot.objects.get(Reference("Deployment", stage_name(run, "serve")))
    wanting = _wanting(snapshot, run, settings, deployment)
    if wanting.conflict:
        return name_conflict(KIND, wanting.conflict)
    if wanting.leaving:
        finding = Finding(
            type=KIND, status="Unknown", reason="Starting", message="the old server's objects are leaving"
        )
        return Report(finding=finding, again=PATIENCE)
    if deployment is None or any(child["kind"] == "Deployment" for child in wanting.write):
        finding = Finding(type=KIND, status="Unknown", reason="RollingOut", message="the server is rolled out")
        return Report(finding=finding, again=PATIENCE, write=wanting.write)
    if run.spec.suspend:
        return _suspended(deployment, run)
    if replicas.replicas_of(deployment) == 0:
        return Report(finding=_scaled_to_nothing(deployment, run), facts=_known_endpoint(run), write=wanting.write)
    if available(deployment):
        url = endpoint(run)
        finding = Finding(type=KIND, status="True", reason="Available", message=f"the model is served at {url}")
        return Report(finding=finding, facts={"endpoint": url}, write=wanting.write)
    return Report(
        finding=_unavailable(snapshot, deployment, now),
        facts=_known_endpoint(run),
        again=max(patience(snapshot.pods, deployment, now), 10.0),
        write=wanting.write,
    )


def _wanting(snapshot: Snapshot, run: FalconFineTune, settings: StageSettings, deployment: Object | None) -> Wanting:
    """What has to be written; the number of replicas is compared by itself, since it may be somebody else's."""
    *others, made = children(run, settings, "serve")
    wanted = replicas.left_alone(made, deployment, suspend=run.spec.suspend)
    wanting = compare(snapshot, run, [*others, wanted])
    if wanting.conflict or wanting.leaving or wanted in wanting.write or deployment is None:
        return wanting
    return replace(wanting, write=(*wanting.write, wanted)) if replicas.differ(wanted, deployment) else wanting


def _known_endpoint(run: FalconFineTune) -> dict[str, str]:
    return {"endpoint": endpoint(run)} if run.status.endpoint else {}


def _suspended(deployment: Object, run: FalconFineTune) -> Report:
    facts = _known_endpoint(run)
    if status(deployment).get("replicas", 0) == 0 and available(deployment):
        return replace(paused(KIND), facts=facts)
    finding = Finding(type=KIND, status="Unknown", reason="Suspending", message="the server's pods finish and stop")
    return Report(finding=finding, facts=facts, again=PATIENCE)


def put_away(snapshot: Snapshot, run: FalconFineTune) -> tuple[Object, ...]:
    """The server's objects of a run that wants none any more."""
    found = (snapshot.objects.get(each) for each in leftovers(run))
    return tuple(obj for obj in found if obj and owned_by(obj, run.metadata.uid) and not being_deleted(obj))


def available(deployment: Object) -> bool:
    """Whether the newest generation answers, with all replicas that the run asks for, and no pod of an older one is
    left to wait for.
    """
    found, wanted = status(deployment), replicas.replicas_of(deployment)
    current: bool = found.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    counts: dict[str, int] = {name: found.get(name, 0) for name in ("updatedReplicas", "availableReplicas", "replicas")}
    if replicas.owned_by_others(deployment) and wanted:
        # An autoscaler adds and takes replicas all day long: the endpoint answers meanwhile.
        return current and counts["availableReplicas"] >= 1 and counts["updatedReplicas"] == counts["replicas"]
    return current and all(count == wanted for count in counts.values())


def _scaled_to_nothing(deployment: Object, run: FalconFineTune) -> Finding:
    name = deployment["metadata"]["name"]
    text = (
        f"somebody scaled Deployment {name} to nothing: `kubectl scale deployment {name} -n {run.namespace} "
        f"--replicas={run.spec.serve.replicas}` lets the model answer again"
    )
    return Finding(type=KIND, status="False", reason="ScaledToNothing", message=text)


def _unavailable(snapshot: Snapshot, deployment: Object, now: datetime) -> Finding:
    if problem := waiting(snapshot, now):
        return Finding(type=KIND, status="False", reason=problem.reason, message=problem.message)
    if refused := holds(deployment, "ReplicaFailure"):
        text = f"Deployment {deployment['metadata']['name']} cannot create its pods: {refused.get('message')}"
        return Finding(type=KIND, status="False", reason=refused.get("reason", "ReplicaFailure"), message=text)
    progressing = condition(deployment, "Progressing") or {}
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        text = f"the server does not become ready: {progressing.get('message')}. Its pods' logs say why"
        return Finding(type=KIND, status="False", reason="ProgressDeadlineExceeded", message=text)
    found = status(deployment)
    counted = f"{found.get('availableReplicas', 0)} of {replicas.replicas_of(deployment)} replicas are available"
    said = snapshot.progress
    text = counted + (f"; a pod says: {said.phase}" if said else "")
    return Finding(type=KIND, status="Unknown", reason="RollingOut", message=text)
