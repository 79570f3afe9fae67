"""How far a run is: the stage that it is at, those that run beside it, and which results are out of date.

prepare ──► train ──► merge ──► serve ──► evaluate
              └─────────┴──► publish

A stage is done when its condition is True and its result is the one that the spec asks for by now. So a changed
`merge.dtype` takes the run back to its merge, and the server of the model before goes on beside it.
"""

from collections.abc import Sequence

from falcon_operator.api.names import StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import ConditionType
from falcon_operator.policy.conditions import wanted
from falcon_operator.stages.workspace import access_mode
from falcon_trainer.config import Artifact, Publication

CONDITIONS: dict[StageName, ConditionType] = {
    "prepare": ConditionType.PREPARED,
    "train": ConditionType.TRAINED,
    "merge": ConditionType.MERGED,
    "serve": ConditionType.SERVING,
    "publish": ConditionType.PUBLISHED,
    "evaluate": ConditionType.EVALUATED,
}
"""The condition of each stage, in the order in which the stages are looked at."""
OPTIONAL_JOBS: tuple[StageName, ...] = ("merge", "publish", "evaluate")
"""Stages of one Job that a change of the spec can make needless."""


def current_stage(run: FalconFineTune) -> StageName | None:
    """The first stage of the way to an answering model that is not done; serve never is, since it goes on. None at
    the end of the way.
    """
    if not _true(run, "prepare"):
        return "prepare"
    if not _true(run, "train") or run.status.adapter is None:
        return "train"
    if run.spec.merge.enabled and not _merged(run):
        return "merge"
    return "serve" if run.spec.serve.enabled else None


def stages_beside(run: FalconFineTune) -> tuple[StageName, ...]:
    """The stages that must be looked at beside the current one: an older model's server, and what follows from
    results and is not done.
    """
    here = current_stage(run)
    if here in ("prepare", "train"):
        return ()
    beside: dict[StageName, bool] = {
        "serve": here == "merge" and run.spec.serve.enabled and run.status.merged is not None,
        "publish": bool(run.spec.publish) and _has_results(run) and not _published(run),
        "evaluate": run.spec.serve.enabled and run.status.merged is not None and not _evaluated(run),
    }
    return tuple(stage for stage, asked in beside.items() if asked)


def goes_before(run: FalconFineTune, stage: StageName) -> Sequence[ConditionType]:
    """What must be True before a stage beside the current one begins. It is not stopped if that changes later.

    Where only one node mounts the workspace, the server chooses it: a pod that copies for hours on a node without GPUs
    would keep the server from starting.
    """
    if stage == "evaluate":
        return (ConditionType.MERGED, ConditionType.SERVING)
    if stage != "publish":
        return ()
    bound = run.spec.serve.enabled and access_mode(run) == "ReadWriteOnce"
    return (
        *([ConditionType.MERGED] if publishes_merged(run) else []),
        *([ConditionType.SERVING] if bound else []),
    )


def needless_jobs(run: FalconFineTune) -> tuple[StageName, ...]:
    """The stages that the spec does not ask for any more, but of which the status still tells."""
    kinds = wanted(run.spec)
    return tuple(
        stage
        for stage in OPTIONAL_JOBS
        if CONDITIONS[stage] not in kinds and run.status.condition(CONDITIONS[stage]) is not None
    )


def kept_model(run: FalconFineTune) -> Artifact | None:
    """The one merged model that must stay while another one is made. None while a rollout is under way, where pods of
    the model before it may still answer: then all stay.
    """
    return run.status.merged if _true(run, "serve") or not run.spec.serve.enabled else None


def publishes_merged(run: FalconFineTune) -> bool:
    """Whether the merged model is to be published, and not the adapter alone."""
    return any(publication.what == "merged" for publication in run.spec.publish or [])


def result(run: FalconFineTune, publication: Publication) -> Artifact | None:
    """What is to be published; None before it was made."""
    return run.status.merged if publication.what == "merged" else run.status.adapter


def unpublished(run: FalconFineTune) -> list[Publication]:
    """The copies that the status does not tell of as made from the present results."""
    told = {(copy.uri, copy.what, copy.digest) for copy in run.status.published}
    return [each for each in run.spec.publish or [] if (each.uri, each.what, _digest(run, each)) not in told]


def _merged(run: FalconFineTune) -> bool:
    """An older operator's status does not say of which type the merged model is: then it is as the spec asks."""
    made = run.status.merge.dtype if run.status.merge else None
    return _true(run, "merge") and run.status.merged is not None and made in (None, run.spec.merge.dtype)


def _has_results(run: FalconFineTune) -> bool:
    return all(result(run, publication) is not None for publication in run.spec.publish or [])


def _published(run: FalconFineTune) -> bool:
    return _true(run, "publish") and not unpublished(run)


def _evaluated(run: FalconFineTune) -> bool:
    said, merged = run.status.evaluation, run.status.merged
    same = said is not None and merged is not None and said.merged == merged.digest
    return _true(run, "evaluate") and same


def _digest(run: FalconFineTune, publication: Publication) -> str | None:
    found = result(run, publication)
    return found.digest if found else None


def _true(run: FalconFineTune, stage: StageName) -> bool:
    condition = run.status.condition(CONDITIONS[stage])
    return condition is not None and condition.status == "True"
