"""Looks at a run whose served model is evaluated: once for each model, beside everything else, and never in its way."""

from typing import Any

import pytest

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import ConditionType
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.objects import Object
from tests.unit.operator.api.runs import MERGED, laid_over
from tests.unit.operator.controller.snapshots import (
    EVALUATION,
    ORDER,
    deletes,
    existing,
    finished,
    look,
    message,
    run_at,
    snapshot,
    stage_objects,
    told,
    writes,
)
from tests.unit.operator.policy.pods import ended, outcome, pod

AVAILABLE = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
FAILED: dict[str, Any] = {
    "status": {"conditions": [{"type": "FailureTarget", "status": "True", "message": "backoff limit"}]}
}
RESULT = {"evaluation": {"prompts": 4, "answered": 4, "changed": 3, "message": "now it answers 42"}}
NO_ANSWER = ended("e", 69, outcome("NoAnswer", "the server does not answer"))


def served(*more: Object, deployment: dict[str, Any] | None = None, pods: Any = (), **spec: Any) -> Snapshot:
    """A run that serves, with these objects beside those of the server; `pods` are the evaluation's."""
    run = run_at(ORDER, **spec)
    *others, made = stage_objects(run, "serve")
    server = [*others, existing(made, status=AVAILABLE if deployment is None else deployment)]
    return snapshot(run, [*server, *more], beside={"evaluate": pods})


def evaluation(run: FalconFineTune | None = None, /, **job: Any) -> list[Object]:
    """The evaluation's objects, the Job with `job` laid over it."""
    made = stage_objects(run or run_at(ORDER), "evaluate")
    return [laid_over(obj, job) if obj["kind"] == "Job" else obj for obj in made]


def test_the_model_is_evaluated_once_the_server_answers() -> None:
    rolling = look(served(deployment=AVAILABLE | {"availableReplicas": 0}))
    assert writes(rolling) == []
    assert told(rolling, "Evaluated") == ("Unknown", "Waiting")
    plan = look(served())
    assert writes(plan) == ["ConfigMap/r-evaluate", "Job/r-evaluate"]
    told_it = plan.write[0]["data"]["run.json"]
    assert MERGED.digest in told_it
    assert "http://r-serve.ml.svc/v1" in told_it
    assert told(plan, "Ready") == ("True", "Serving"), "it is a look at a run that has arrived"


def test_an_evaluation_that_runs_is_shown_and_left_alone() -> None:
    plan = look(served(*evaluation(), pods=[pod("e")]))
    assert told(plan, "Evaluated") == ("Unknown", "Running")
    assert (writes(plan), deletes(plan), plan.again) == ([], [], 10.0)


def test_an_evaluation_goes_on_while_the_server_is_away() -> None:
    plan = look(served(*evaluation(), pods=[pod("e")], deployment={}))
    assert told(plan, "Serving")[0] == "Unknown"
    assert told(plan, "Evaluated") == ("Unknown", "Running")
    assert deletes(plan) == []


def test_what_the_model_answered_goes_into_the_status_and_then_nothing_is_done() -> None:
    seen = served(*evaluation(), pods=[finished("e", RESULT)])
    plan = look(seen)
    assert told(plan, "Evaluated") == ("True", "Evaluated")
    assert "4 of 4 stored prompts, 3 unlike the base: now it answers 42" in message(plan, "Evaluated")
    assert plan.status
    assert plan.status.evaluation
    assert plan.status.evaluation.merged == MERGED.digest
    assert seen.run
    after = look(snapshot(seen.run.model_copy(update={"status": plan.status}), seen.objects.values()))
    assert (after.status, writes(after), deletes(after), after.again) == (None, [], [], None)


def test_an_evaluation_that_fails_is_told_and_holds_nothing_up() -> None:
    seen = served(*evaluation(**FAILED), pods=[NO_ANSWER])
    plan = look(seen)
    assert told(plan, "Evaluated") == ("False", "NoAnswer")
    assert "kubectl delete job r-evaluate" in message(plan, "Evaluated")
    assert [each.reason for each in plan.occasions if each.warning] == ["NoAnswer"]
    assert (told(plan, "Ready"), told(plan, "Stalled")[0]) == (("True", "Serving"), "False")
    assert (writes(plan), deletes(plan), plan.again) == ([], [], None)


def test_another_model_is_evaluated_anew_after_it_was_rolled_out() -> None:
    """The Job of the model before goes at once, the new one comes when the new model answers."""
    before = run_at(ORDER, {"merged": MERGED.model_copy(update={"digest": f"sha256:{'0c' * 32}"})})
    rolling = served(*evaluation(before), deployment=AVAILABLE | {"updatedReplicas": 0})
    assert (deletes(look(rolling)), writes(look(rolling))) == (["Job/r-evaluate"], [])
    assert writes(look(served())) == ["ConfigMap/r-evaluate", "Job/r-evaluate"]


def test_an_evaluation_of_another_model_is_not_taken_for_this_one() -> None:
    """Whatever the stage says: the Job was told which model answers."""
    said = {"evaluation": RESULT["evaluation"] | {"merged": f"sha256:{'0c' * 32}"}}
    plan = look(served(*evaluation(), pods=[finished("e", said)]))
    assert plan.status
    assert plan.status.evaluation
    assert plan.status.evaluation.merged == MERGED.digest


def test_a_result_that_is_none_is_told() -> None:
    plan = look(served(*evaluation(), pods=[finished("e", {"evaluation": "fine"})]))
    assert told(plan, "Evaluated") == ("False", "UnknownResult")


def test_a_suspended_run_holds_its_evaluation() -> None:
    plan = look(served(*evaluation(), pods=[pod("e")], suspend=True, deployment={"observedGeneration": 1}))
    assert [dict(change.fields) for change in plan.change] == [{"suspend": True}]
    assert told(plan, "Suspended") == ("False", "Suspending")
    held = evaluation(spec={"suspend": True})
    rest = look(served(*held, suspend=True, deployment={"observedGeneration": 1}))
    assert told(rest, "Suspended") == ("True", "Suspended")


def test_the_job_goes_with_the_server_that_is_not_wanted_any_more() -> None:
    status = {"conditions": run_at([*ORDER, "Evaluated"]).status.conditions, "evaluation": EVALUATION}
    off = run_at(ORDER, status, serve={"enabled": False})
    plan = look(snapshot(off, evaluation()))
    assert deletes(plan) == ["Job/r-evaluate"]
    assert told(plan, "Ready") == ("True", "Completed")
    assert plan.status
    gone = look(snapshot(off.model_copy(update={"status": plan.status})))
    assert gone.status
    assert gone.status.condition(ConditionType.EVALUATED) is None


@pytest.mark.parametrize("stages", [ORDER[:2], ORDER[:3]], ids=["train", "merge"])
def test_nothing_is_evaluated_before_there_is_a_model(stages: tuple[str, ...]) -> None:
    plan = look(snapshot(run_at(stages)))
    assert "Job/r-evaluate" not in writes(plan)
    assert told(plan, "Evaluated") == ("Unknown", "Waiting")
