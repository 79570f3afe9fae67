"""Looks at a run that shares a name with others."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.controller.flow.alias import aliases, heirs
from falcon_operator.controller.flow.report import Plan
from falcon_operator.objects import Key, Object
from falcon_operator.policy.alias import Claimant
from falcon_operator.stages.alias import alias_service
from tests.unit.operator.api.runs import laid_over
from tests.unit.operator.controller.snapshots import (
    ORDER,
    deletes,
    existing,
    look,
    run_at,
    snapshot,
    stage_objects,
    writes,
)
from tests.unit.operator.controller.snapshots import told as condition
from tests.unit.operator.policy.pods import NOW, at

AVAILABLE = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
ALIAS = {"serve": {"alias": "assistant"}}
URL = "http://r-serve.ml.svc/v1"
HELD = {"alias": "assistant", "endpoint": URL}


def claiming(status: dict[str, Any] | None = None, /, **spec: Any) -> FalconFineTune:
    """The run `r`, which was created a minute ago and serves."""
    run = run_at(ORDER[:4], status, **laid_over(ALIAS, spec))
    created = NOW - timedelta(seconds=60)
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"creation_timestamp": created})})


def other(name: str, age: int = 3600, /, **changes: Any) -> Object:
    """Another run of the namespace, which answers."""
    conditions = [{"type": kind, "status": "True", "observedGeneration": 1} for kind in ("Accepted", "Serving")]
    run = {
        "apiVersion": "falcon-finetune.dev/v1alpha1",
        "kind": "FalconFineTune",
        "metadata": {
            "name": name,
            "namespace": "ml",
            "uid": f"uid-{name}",
            "generation": 1,
            "creationTimestamp": at(-age),
        },
        "spec": ALIAS,
        "status": {"endpoint": "http://…", "conditions": conditions},
    }
    return laid_over(run, changes)


def service(holder: str, *names: str) -> Object:
    """The alias's Service as an earlier election left it."""
    claimants = [
        Claimant(name=name, uid=f"uid-{name}" if name != "r" else claiming().metadata.uid, created=NOW, serving=True)
        for name in names or (holder,)
    ]
    (elected,) = (each for each in claimants if each.name == holder)
    return existing(alias_service("ml", "assistant", elected, claimants))


def looked(
    run: FalconFineTune, found: Object | None = None, runs: Sequence[Object] = (), status: Any = AVAILABLE
) -> Plan:
    """A look at the run, whose server has this status."""
    objects = []
    if run.spec.serve.enabled:
        *others, made = stage_objects(run, "serve")
        objects = [*others, existing(made, status=status)]
    return look(replace(snapshot(run, [*objects, *([found] if found else [])]), runs=runs))


def serves(plan: Plan) -> list[str]:
    """KIND/NAME of what is written to serve; a server that answers is evaluated besides."""
    return [name for name in writes(plan) if not name.endswith("-evaluate")]


def written(plan: Plan) -> Object | None:
    """The alias's Service, if the plan writes it."""
    return next((obj for obj in plan.write if obj["metadata"]["name"] == "assistant"), None)


def led_to(plan: Plan) -> str | None:
    """The run that the plan leads the alias to; None where it leaves the Service alone."""
    found = written(plan)
    return found["spec"]["selector"]["falcon-finetune.dev/run"] if found else None


def owners(plan: Plan) -> list[tuple[str, bool]]:
    """Names of the runs that the alias's Service belongs to, and whether one controls it."""
    found = written(plan)
    assert found
    return [(each["name"], "controller" in each) for each in found["metadata"]["ownerReferences"]]


def held(plan: Plan, run: FalconFineTune) -> str | None:
    return (plan.status or run.status).alias


def events(plan: Plan) -> list[str]:
    return [occasion.reason for occasion in plan.occasions]


def test_the_first_run_that_answers_takes_the_name() -> None:
    run = claiming()
    plan = looked(run)
    assert (led_to(plan), held(plan, run)) == ("r", "assistant")
    assert "AliasTaken" in events(plan)


def test_a_newer_run_takes_the_name_in_one_write() -> None:
    plan = looked(claiming(), service("q"), [other("q")])
    assert serves(plan) == ["Service/assistant"]
    assert led_to(plan) == "r"
    assert owners(plan) == [("q", False), ("r", False)]


def test_a_holder_that_stays_writes_nothing_and_tells_nothing() -> None:
    run = claiming(HELD)
    plan = looked(run, service("r"))
    assert (serves(plan), deletes(plan), held(plan, run)) == ([], [], "assistant")
    assert "AliasTaken" not in events(plan)


def test_the_holder_before_learns_that_it_lost_the_name() -> None:
    run = claiming(HELD)
    plan = looked(run, service("q", "q", "r"), [other("q", 1)])
    assert (serves(plan), held(plan, run)) == ([], None)


def test_a_run_that_does_not_answer_yet_leaves_the_name_alone() -> None:
    plan = looked(claiming(), service("q"), [other("q")], status={})
    assert (serves(plan), plan.status and plan.status.alias) == ([], None)


def test_a_holder_whose_server_is_rolled_out_keeps_the_name() -> None:
    run = claiming(HELD)
    plan = looked(run, service("r", "q", "r"), [other("q")], status={})
    assert (led_to(plan), held(plan, run)) == (None, "assistant")


def test_a_suspended_run_hands_the_name_on_by_itself() -> None:
    run = claiming(HELD, suspend=True)
    plan = looked(run, service("r", "q", "r"), [other("q")], status={})
    assert (led_to(plan), held(plan, run)) == ("q", None)


GIVEN_UP: dict[str, dict[str, Any]] = {
    "without an alias": {"serve": {"alias": None}},
    "with another alias": {"serve": {"alias": "desk"}},
    "without a server": {"serve": {"enabled": False}},
}


@pytest.mark.parametrize("name", GIVEN_UP)
def test_a_run_hands_on_a_name_that_it_wants_no_more(name: str) -> None:
    run = claiming(HELD, **GIVEN_UP[name])
    plan = looked(run, service("r", "q", "r"), [other("q")])
    assert led_to(plan) == "q"
    assert owners(plan) == [("q", False)]
    assert held(plan, run) == "assistant", "until it is seen to lead elsewhere"
    assert plan.again is not None
    after = looked(run, service("q"), [other("q")])
    assert held(after, run) is None


def test_a_name_that_nobody_else_may_have_goes() -> None:
    plan = looked(claiming(HELD, serve={"alias": None}), service("r"), [other("q", spec={"serve": {"alias": "x"}})])
    assert deletes(plan) == ["Service/assistant"]


NOT_YET: dict[str, dict[str, Any]] = {
    "one that has never answered": {"status": {"endpoint": None, "conditions": []}},
    "one that does not answer": {"status": {"conditions": []}},
    "one whose spec was changed a moment ago": {"metadata": {"generation": 2}},
    "one whose spec is refused": {
        "status": {"conditions": [{"type": "Serving", "status": "True", "observedGeneration": 1}]}
    },
    "one that is being deleted": {"metadata": {"deletionTimestamp": at(0)}},
    "one that is suspended": {"spec": {"suspend": True}},
    "one with another alias": {"spec": {"serve": {"alias": "desk"}}},
    "one without a server": {"spec": {"serve": {"enabled": False}}},
}


@pytest.mark.parametrize("name", NOT_YET)
def test_no_newer_run_is_given_the_name_that_is(name: str) -> None:
    changes = NOT_YET[name]
    newer = other("z", 1, **changes)
    if changes.get("status", {}).get("endpoint", "") is None:
        del newer["status"]["endpoint"]
    run = claiming(HELD)
    plan = looked(run, service("r"), [newer])
    assert (led_to(plan), held(plan, run)) in ((None, "assistant"), ("r", "assistant"))


def test_the_service_does_not_outlive_the_runs_that_have_answered() -> None:
    newer = other("z", 1)
    del newer["status"]["endpoint"]
    assert owners(looked(claiming(), None, [newer])) == [("r", False)]


def test_a_service_of_somebody_else_is_told_and_left_alone() -> None:
    alien = laid_over(service("q"), {"metadata": {"labels": {"falcon-finetune.dev/alias": "other"}}})
    plan = looked(claiming({"endpoint": URL}), alien)
    assert condition(plan, "Serving") == ("False", "NameConflict")
    assert condition(plan, "Stalled") == ("True", "NameConflict")
    assert (serves(plan), deletes(plan)) == ([], [])
    assert plan.again == 60.0
    assert plan.status
    assert plan.status.endpoint == URL


def test_a_service_that_is_leaving_is_waited_for() -> None:
    leaving = laid_over(service("q"), {"metadata": {"deletionTimestamp": at(0)}})
    plan = looked(claiming(), leaving)
    assert (serves(plan), deletes(plan)) == ([], [])
    assert plan.again is not None


def test_a_selector_that_somebody_changed_is_put_right() -> None:
    changed = laid_over(service("r"), {"spec": {"selector": {"falcon-finetune.dev/run": "somewhere"}}})
    assert led_to(looked(claiming(HELD), changed)) == "r"


def test_names_are_looked_up_of_runs_that_share_one_and_have_a_model() -> None:
    assert aliases(claiming()) == ("assistant",)
    assert aliases(claiming({"alias": "desk"})) == ("assistant", "desk")
    assert aliases(run_at(ORDER[:3], **ALIAS)) == ()
    assert aliases(run_at(ORDER[:4])) == ()


def test_the_heirs_of_a_run_that_is_gone_are_those_that_shared_its_name() -> None:
    assert heirs(service("r", "p", "q", "r"), Key("ml", "r")) == [Key("ml", "p"), Key("ml", "q")]
