"""Which children a run wants in its present stages, and which of them have to be written."""

from dataclasses import dataclass

from falcon_operator.api.names import HASH_ANNOTATION, KIND, RUN_LABEL, StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import FalconFineTuneStatus
from falcon_operator.controller.flow.course import kept_model, needless_jobs, publishes_merged, stages_beside
from falcon_operator.controller.flow.snapshot import Reference, Snapshot, reference
from falcon_operator.objects import Object, being_deleted, labels, owned_by
from falcon_operator.stages.evaluate import evaluate_config, evaluate_job
from falcon_operator.stages.manifest import Manifest
from falcon_operator.stages.merge import merge_config, merge_job
from falcon_operator.stages.naming import attempt_of, stage_name, train_job_name
from falcon_operator.stages.prepare import prepare_config, prepare_job
from falcon_operator.stages.publish import publish_config, publish_job
from falcon_operator.stages.serve import serve_budget, serve_config, serve_deployment, serve_service
from falcon_operator.stages.settings import StageSettings
from falcon_operator.stages.train import train_config, train_service
from falcon_operator.stages.workspace import workspace_claim

APPLIED = frozenset({"Service", "Deployment", "PodDisruptionBudget"})
"""Kinds that are changed when the spec changes; all others are created once."""


def children(run: FalconFineTune, settings: StageSettings, stage: StageName) -> list[Manifest]:
    """What `stage` wants to exist, in the order of creation. The Jobs of the train stage are not among them: how many
    there are is decided by how they end.
    """
    adapter, merged = run.status.adapter, run.status.merged
    if stage == "prepare":
        claim = workspace_claim(run)
        return [*([claim] if claim else []), prepare_config(run), prepare_job(run, settings)]
    if stage == "train":
        return [train_config(run), train_service(run)]
    assert adapter is not None, "all other stages follow train"
    if stage == "merge":
        kept = kept_model(run)
        return [merge_config(run, adapter, kept), merge_job(run, settings, adapter, kept)]
    if stage == "publish":
        model = merged if publishes_merged(run) else None
        return [publish_config(run, adapter, model), publish_job(run, settings, adapter, model)]
    assert merged is not None, "serve and evaluate follow merge"
    if stage == "evaluate":
        return [evaluate_config(run, merged), evaluate_job(run, settings, merged)]
    return [
        serve_config(run, merged),
        serve_service(run),
        serve_budget(run),
        serve_deployment(run, settings, merged),
    ]


def configs_alike(run: FalconFineTune, stage: StageName, wanted: list[Manifest]) -> set[str]:
    """Names of the ConfigMaps that ask a stage of one pod for what its `wanted` children ask for. Which older models a
    merge leaves alone may change while it runs, and is no reason to merge again.
    """
    found = [child for child in wanted if child["kind"] == "ConfigMap"]
    if stage == "merge" and run.status.adapter:
        found += [merge_config(run, run.status.adapter, kept) for kept in (None, run.status.merged)]
    return {config["metadata"]["name"] for config in found}


def newest_attempt(status: FalconFineTuneStatus, jobs: dict[int, Object]) -> int:
    """The largest attempt number that was ever used; 0 before the first attempt."""
    return max([0, *jobs, *(record.attempt for record in status.attempts)])


def attempts_of(run: FalconFineTune, jobs: list[Object]) -> dict[int, Object]:
    """The run's own train Jobs by attempt."""
    found = {attempt_of(run, job["metadata"]["name"]): job for job in jobs if owned_by(job, run.metadata.uid)}
    return {number: job for number, job in found.items() if number is not None}


def references(run: FalconFineTune, settings: StageSettings, stage: StageName | None, newest: int) -> list[Reference]:
    """The names that must be looked up to judge the run: those of the children of its stages, whoever owns them now,
    and what may be left of stages that it had.
    """
    stages = [*([stage] if stage else []), *stages_beside(run)]
    found = [reference(child) for each in stages for child in children(run, settings, each)]
    if stage == "train":
        found.append(Reference("Job", train_job_name(run, newest + 1)))
    return [*found, *leftovers(run)]


def leftovers(run: FalconFineTune) -> list[Reference]:
    """The Jobs and the server of a run that wants them no more. The endpoint is told only once the server is available:
    a run that has a merged model may have made one before that.
    """
    jobs = [Reference("Job", stage_name(run, stage)) for stage in needless_jobs(run)]
    if run.spec.serve.enabled or not (run.status.merged or run.status.endpoint):
        return jobs
    name = stage_name(run, "serve")
    return [*jobs, *(Reference(kind, name) for kind in ("Deployment", "Service", "PodDisruptionBudget"))]


@dataclass(frozen=True)
class Wanting:
    """What has to be written so that the wanted children exist as wanted."""

    write: tuple[Manifest, ...] = ()
    """In the order of `wanted`."""
    conflict: str | None = None
    """A sentence on a name that something else has taken."""
    leaving: bool = False
    """Whether a name is not free yet: its object is being deleted."""


def compare(snapshot: Snapshot, run: FalconFineTune, wanted: list[Manifest]) -> Wanting:
    """What of `wanted` has to be written, given what exists."""
    write: list[Manifest] = []
    leaving = False
    for child in wanted:
        found = snapshot.objects.get(reference(child))
        if found is None:
            write.append(child)
        elif being_deleted(found) or _of_earlier_run(found, run):
            leaving = True
        elif not _ours(found, run):
            return Wanting(conflict=_conflict(child, found))
        elif difference := _other_claim(child, found):
            return Wanting(conflict=difference)
        elif child["kind"] in APPLIED and _hash(found) != _hash(child):
            write.append(child)
    return Wanting(() if leaving else tuple(write), None, leaving)


def _ours(obj: Object, run: FalconFineTune) -> bool:
    """A retained claim has no owner and outlives its run: one that an earlier run of this name left is taken over."""
    if owned_by(obj, run.metadata.uid):
        return True
    orphan = not any(owner.get("controller") for owner in obj["metadata"].get("ownerReferences") or [])
    return orphan and obj["kind"] == "PersistentVolumeClaim" and labels(obj).get(RUN_LABEL) == run.name


def _of_earlier_run(obj: Object, run: FalconFineTune) -> bool:
    """A run that was deleted and made again under its name waits until the old one's children are collected."""
    owners = obj["metadata"].get("ownerReferences") or []
    return any(each["kind"] == KIND and each["name"] == run.name and each["uid"] != run.metadata.uid for each in owners)


def _conflict(child: Manifest, found: Object) -> str:
    owners = [f"{owner['kind']} {owner['name']}" for owner in found["metadata"].get("ownerReferences") or []]
    whose = f"belongs to {', '.join(owners)}" if owners else "was made by somebody else"
    what = f"{child['kind']} {child['metadata']['name']}"
    return f"{what} exists already and {whose}: delete or rename it, or give this run another name"


def _other_claim(child: Manifest, found: Object) -> str | None:
    """What a retained claim of an earlier run has otherwise than this run asks for; it is never taken over silently."""
    if child["kind"] != "PersistentVolumeClaim":
        return None
    wanted, has = child["spec"], found["spec"]
    fields = {
        "size": (wanted["resources"]["requests"]["storage"], has["resources"]["requests"]["storage"]),
        "accessMode": (wanted["accessModes"], has["accessModes"]),
        "storageClassName": (wanted.get("storageClassName", has.get("storageClassName")), has.get("storageClassName")),
        "whenDeleted": (_when_deleted(child), _when_deleted(found)),
    }
    if _hash(found) == _hash(child):  # made as it is asked for, whatever a person has enlarged since
        fields = {"whenDeleted": fields["whenDeleted"]}
    others = [f"{name} {was} instead of {now}" for name, (now, was) in fields.items() if now != was]
    if not others:
        return None
    name = child["metadata"]["name"]
    return (
        f"the claim {name} was left by an earlier run of this name and has {', '.join(others)}: make the run with "
        f"workspace.claimName {name} to use it as it is, or give it another name"
    )


def _when_deleted(claim: Object) -> str:
    return "Delete" if claim["metadata"].get("ownerReferences") else "Retain"


def _hash(obj: Object) -> str | None:
    found: str | None = (obj["metadata"].get("annotations") or {}).get(HASH_ANNOTATION)
    return found
