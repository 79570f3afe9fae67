"""Looks at a run that trains: the first attempt, one that runs, and success."""

import pytest

from falcon_operator.api.status import TrainingStatus
from falcon_operator.objects import Object, moment
from falcon_trainer.progress import Notice, Progress
from tests.unit.operator.api.runs import ADAPTER
from tests.unit.operator.controller.attempts import (
    ADAPTED,
    BOTH,
    COMPLETE,
    record,
    records,
)
from tests.unit.operator.controller.snapshots import (
    ORDER,
    at_train,
    deletes,
    finished,
    look,
    message,
    run_at,
    snapshot,
    told,
    writes,
)
from tests.unit.operator.policy.pods import at, deleted, pod, unschedulable

# --- the first attempt, and one that runs


def test_the_first_attempt_is_number_one_and_comes_after_what_it_needs() -> None:
    plan = look(snapshot(run_at(ORDER[:2])))
    assert writes(plan) == ["ConfigMap/r-train", "Service/r-train", "Job/r-train-1"]
    assert told(plan, "Trained") == ("Unknown", "Starting")


def test_an_attempt_is_written_down_when_its_job_is_seen() -> None:
    plan = look(at_train(1, pods=BOTH))
    assert plan.status
    assert records(plan.status) == [(1, "Running", None, False)]
    assert plan.status.attempts[0].job_uid == "uid-r-train-1"
    assert plan.status.training
    assert plan.status.training.attempt == 1
    assert [each.reason for each in plan.occasions].count("AttemptStarted") == 1
    assert writes(plan) == []


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param([finished("a", ADAPTED, index=0), pod("b", index=1)], id="trained already"),
        pytest.param([deleted(pod("a", index=0)), pod("b", index=1)], id="bound to end already"),
        pytest.param([BOTH[0], unschedulable("no GPU")], id="without a node"),
    ],
)
def test_an_attempt_that_is_first_seen_late_is_still_told_once(pods: list[Object]) -> None:
    seen = at_train(1, pods=pods)
    assert [each.reason for each in look(seen).occasions].count("AttemptStarted") == 1
    known = at_train(1, pods=pods, attempts=[record(1)])
    assert [each.reason for each in look(known).occasions].count("AttemptStarted") == 0


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param([], ("Unknown", "Starting"), id="no pods yet"),
        pytest.param(BOTH[:1], ("Unknown", "Starting"), id="one of two"),
        pytest.param(BOTH, ("Unknown", "Running"), id="the whole gang"),
        pytest.param([BOTH[0], unschedulable("no GPU")], ("False", "Unschedulable"), id="one that no node can take"),
    ],
)
def test_a_gang_that_comes_up(pods: list[Object], expected: tuple[str, str]) -> None:
    plan = look(at_train(1, pods=pods))
    assert told(plan, "Trained") == expected
    assert (writes(plan), deletes(plan)) == ([], [])


def test_progress_of_rank_0_is_shown() -> None:
    said = Progress(
        stage="train", phase="train", step=30, total_steps=60, loss=0.5, seconds_left=65, last_checkpoint_step=20
    )
    plan = look(at_train(1, pods=BOTH, progress=said, attempts=[record(1)]))
    assert plan.status
    training = plan.status.training
    assert training
    assert (training.progress, training.loss, training.eta, training.last_checkpoint_step) == ("50%", "0.5", "1m5s", 20)


def test_rank_0_tells_which_checkpoint_it_really_went_on_from_and_how_it_measures() -> None:
    """The newest checkpoint that the status knew, of step 40, was damaged."""
    said = Progress(
        stage="train",
        phase="train",
        step=25,
        resumed_from_step=20,
        last_checkpoint_step=20,
        evaluation_loss=1.23456,
        best_step=20,
    )
    known = [record(1, "Disrupted", "Evicted"), record(2, resumed_from_step=40)]
    plan = look(at_train(1, 2, pods=BOTH, progress=said, attempts=known))
    assert plan.status
    assert plan.status.attempts[1].resumed_from_step == 20
    assert plan.status.training
    assert (plan.status.training.evaluation_loss, plan.status.training.best_step) == ("1.235", 20)


def test_what_rank_0_wants_a_person_to_know_is_told_once() -> None:
    damaged = Notice(reason="CheckpointDamaged", message="checkpoint-40 has 10 bytes instead of 20")
    said = Progress(stage="train", phase="load", notices=[damaged])
    plan = look(at_train(1, pods=BOTH, progress=said, attempts=[record(1)]))
    assert [each.message for each in plan.occasions if each.reason == "CheckpointDamaged"] == [damaged.message]
    assert plan.status
    again = look(at_train(1, pods=BOTH, progress=said, attempts=plan.status.attempts))
    assert [each for each in again.occasions if each.reason == "CheckpointDamaged"] == []


def test_the_status_names_a_slow_rank() -> None:
    said = Progress(stage="train", phase="train", step=30, message="rank 3 (node n2) is slow")
    plan = look(at_train(1, pods=BOTH, progress=said, attempts=[record(1)]))
    assert message(plan, "Trained") == "attempt 1 runs: train; rank 3 (node n2) is slow"


def test_an_attempt_says_on_which_nodes_it_ran() -> None:
    plan = look(at_train(1, pods=[pod("a", index=0)], attempts=[record(1, nodes=["n2"])]))
    assert plan.status
    assert plan.status.attempts[0].nodes == ["n1", "n2"]


def test_what_a_pod_does_not_say_stays_as_it_was() -> None:
    before = TrainingStatus(attempt=2, step=30, total_steps=60, last_checkpoint_step=20, percent=50, progress="50%")
    said = Progress(stage="train", phase="load")
    plan = look(at_train(1, 2, pods=BOTH, progress=said, attempts=[record(2)], training=before))
    assert plan.status
    assert plan.status.training == before.model_copy(update={"active_since": moment(at(-60))})


# --- success


def test_the_adapter_of_rank_0_is_accepted_even_while_other_pods_still_end() -> None:
    pods = [finished("a", ADAPTED, index=0), pod("b", index=1)]
    plan = look(at_train(1, pods=pods, attempts=[record(1)]))
    assert told(plan, "Trained") == ("True", "Trained")
    assert plan.status
    assert plan.status.adapter == ADAPTER
    assert records(plan.status) == [(1, "Succeeded", None, True)]
    assert plan.status.training
    assert (plan.status.training.progress, plan.status.training.loss) == ("100%", "0.0321")
    assert plan.again == 0.0


def test_a_training_that_stopped_early_is_done_and_says_what_its_adapter_measured() -> None:
    result = ADAPTED | {"step": 40, "evaluationLoss": "1.5", "bestStep": 30, "stoppedEarly": True}
    before = TrainingStatus(attempt=1, step=40, total_steps=60, evaluation_loss="1.7", best_step=30)
    pods = [finished("a", result, index=0), finished("b", {}, index=1)]
    plan = look(at_train(1, pods=pods, attempts=[record(1)], training=before))
    assert plan.status
    over = plan.status.training
    assert over
    assert (over.step, over.total_steps, over.progress, over.stopped_early) == (40, 60, "100%", True)
    assert (over.evaluation_loss, over.best_step) == ("1.5", 30)


def test_success_of_another_rank_is_no_success() -> None:
    pods = [pod("a", index=0), finished("b", None, index=1)]
    assert told(look(at_train(1, pods=pods)), "Trained") != ("True", "Trained")


def test_a_result_that_comes_while_the_attempt_is_ending_counts() -> None:
    pods = [finished("a", ADAPTED, index=0), deleted(pod("b", index=1))]
    plan = look(at_train(1, pods=pods, attempts=[record(1, "Disrupted", "PodDeleted", over=False)]))
    assert told(plan, "Trained") == ("True", "Trained")
    assert plan.status
    assert records(plan.status) == [(1, "Succeeded", None, True)]


def test_a_rank_0_that_succeeds_without_an_adapter_stops_the_run() -> None:
    """Another attempt would tell the same, again and again."""
    plan = look(at_train(1, pods=[finished("a", {"something": "else"}, index=0)], job=COMPLETE, attempts=[record(1)]))
    assert told(plan, "Stalled") == ("True", "UnknownResult")
    assert writes(plan) == []
