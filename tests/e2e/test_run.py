"""One run from data to answers, while the operator is killed in each of its stages."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from examples.demo.inputs import CLAIM, demo_records
from examples.demo.kube import Kubectl, Manifest
from tests.e2e.inside import run_inside
from tests.e2e.operator import kill_leader
from tests.e2e.runs import KIND, run_named, status_of, wait_true
from tests.e2e.watching import KINDS, LABEL, Seen, watching

RUN = "dolly-tiny"
STAGES = ("Preparing", "Training", "Merging", "Deploying")
TOKEN_FREE = {"train", "merge", "serve", "evaluate"}


@dataclass
class Finished:
    """A run that is Ready and evaluated, and all that was seen on its way."""

    status: dict[str, Any]
    seen: Seen
    versions: dict[str, str]
    ready_at: float = field(default_factory=time.monotonic)

    def pods(self, stage: str) -> list[dict[str, Any]]:
        """Every pod of a stage that was ever seen."""
        pods: list[dict[str, Any]] = list(self.seen.pods.values())
        return [pod for pod in pods if pod["metadata"]["labels"].get("falcon-finetune.dev/stage") == stage]


def versions(kubectl: Kubectl) -> dict[str, str]:
    """resourceVersion of the run and of every child."""
    items: list[Manifest] = [kubectl.get(KIND, RUN) or {}]
    for kind in KINDS:
        items += kubectl.list(kind, f"{LABEL}={RUN}")
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in items}


def wait_for_stage(kubectl: Kubectl, stage: str) -> None:
    kubectl.wait_for(f"stage {stage}", lambda: status_of(kubectl, RUN).get("stage") == stage, timeout=300)


@pytest.fixture(scope="module")
def finished(kubectl: Kubectl) -> Iterator[Finished]:
    with watching(kubectl.namespace, RUN) as seen:
        kubectl.apply(run_named(RUN))
        for stage in STAGES:
            wait_for_stage(kubectl, stage)
            kill_leader()
        wait_true(kubectl, RUN, "Ready")
        status = wait_true(kubectl, RUN, "Evaluated")
        # The Job controller's own last word on the Job, after which nobody writes.
        kubectl("wait", "--for=condition=Complete", f"job/{RUN}-evaluate", "--timeout=120s")
        yield Finished(status, seen, versions(kubectl))


@pytest.fixture(scope="module")
def inspected(kubectl: Kubectl, finished: Finished) -> dict[str, Any]:
    """What stock PEFT and transformers find on the run's volume."""
    status = finished.status
    arguments = ("/workspace", status["adapter"]["path"], status["merged"]["path"], "/inputs/base", RUN)
    return run_inside(kubectl, "inspect_run.py", *arguments, claims={"/workspace": f"{RUN}-workspace"})


@pytest.fixture(scope="module")
def answered(kubectl: Kubectl, finished: Finished) -> dict[str, Any]:
    """What the official OpenAI client got through the Service."""
    questions = json.dumps([record["instruction"] for record in demo_records()])
    return run_inside(kubectl, "ask_openai.py", finished.status["endpoint"], RUN, questions)


def test_kubectl_wait_returns_at_ready(kubectl: Kubectl, finished: Finished) -> None:
    kubectl("wait", "--for=condition=Ready", f"fft/{RUN}", "--timeout=1s")


def test_the_columns_are_what_a_user_wants_to_see(kubectl: Kubectl, finished: Finished) -> None:
    header, row = kubectl("get", "fft", RUN).splitlines()
    assert header.split() == ["NAME", "STAGE", "PROGRESS", "LOSS", "ETA", "ATTEMPT", "ENDPOINT", "AGE"]
    assert row.split()[:3] == [RUN, "Serving", "100%"]
    assert finished.status["endpoint"] in row


def test_a_killed_operator_makes_nothing_twice(finished: Finished) -> None:
    assert finished.seen.made_twice() == {}
    assert {f"Job/{RUN}-prepare", f"Job/{RUN}-train-1", f"Job/{RUN}-merge", f"Deployment/{RUN}-serve"} <= set(
        finished.seen.uids
    )


def test_the_gang_trained_on_two_nodes(finished: Finished) -> None:
    nodes = {pod["spec"]["nodeName"] for pod in finished.pods("train")}
    assert len(finished.pods("train")) == 2
    assert len(nodes) == 2, f"both train pods ran on {nodes}"


def test_the_served_model_was_asked_the_stored_prompts(finished: Finished) -> None:
    evaluation = finished.status["evaluation"]
    assert evaluation["merged"] == finished.status["merged"]["digest"]
    assert evaluation["answered"] == evaluation["prompts"] > 0


def test_stage_pods_hold_no_api_token(finished: Finished) -> None:
    for stage in sorted(TOKEN_FREE):
        assert finished.pods(stage), f"no {stage} pod was seen"
        for pod in finished.pods(stage):
            assert pod["spec"]["automountServiceAccountToken"] is False
            projected = [volume["name"] for volume in pod["spec"]["volumes"] if "projected" in volume]
            assert projected == [], f"{stage} pod mounts {projected}"


def test_the_base_was_never_whole_on_a_rank(inspected: dict[str, Any]) -> None:
    loads = inspected["loads"]
    assert [load["rank"] for load in loads] == [0, 1]
    for load in loads:
        assert load["largestLocal"] == 0, "a base matrix was not partitioned right after load"
        grown = load["anonymousPeak"] - load["anonymousBefore"]
        assert grown < load["baseBytes"], f"rank {load['rank']} grew by {grown} B for a base of {load['baseBytes']} B"


def test_the_records_are_known_by_heart(inspected: dict[str, Any]) -> None:
    assert inspected["losses"][-1] < 0.1
    assert inspected["steps"] == list(range(1, inspected["steps"][-1] + 1))


def test_the_adapter_is_sound(inspected: dict[str, Any]) -> None:
    tensors = inspected["tensors"]
    assert len(tensors) == 2 * 4 * 4, "A and B of four linears in four layers"
    unsound = [t for t in tensors if t["dimensions"] != 2 or not t["elements"] or not t["finite"] or t["zero"]]
    assert unsound == []


def test_the_merged_model_equals_base_and_adapter(inspected: dict[str, Any]) -> None:
    assert inspected["logit_difference"] <= 1e-5


def test_the_trained_answers_come_back_through_the_service(answered: dict[str, Any]) -> None:
    trained = [record["response"].strip() for record in demo_records()]
    assert [answer.strip() for answer in answered["plain"]] == trained
    assert answered["streamed"].strip() == trained[0]
    assert answered["chunks"] > 1
    assert answered["completion"].strip() == trained[0]


def test_an_answer_ends_where_the_client_says(answered: dict[str, Any]) -> None:
    limited = answered["limited"]
    assert (limited["max_tokens"], limited["stop"]) == ("length", "stop")
    assert limited["stopped"] == limited["before_stop"]


def test_many_clients_at_once_get_the_same_answer(answered: dict[str, Any]) -> None:
    first = answered["plain"][0].strip()
    assert len(answered["at_once"]) == 32
    assert len(set(answered["at_once"])) == 1
    assert first.startswith(answered["at_once"][0].strip())


def test_the_api_refuses_what_it_cannot_do_and_goes_on(answered: dict[str, Any]) -> None:
    assert answered["models"] == [RUN]
    assert answered["refused"] == {
        "wrong model": ["NotFoundError", 404, "model_not_found"],
        "negative max_tokens": ["BadRequestError", 400, "invalid_value"],
        "log probabilities": ["BadRequestError", 400, "unsupported_value"],
        "too long": ["BadRequestError", 400, "context_length_exceeded"],
    }
    assert answered["malformed"] == [400, "invalid_request_error"]
    assert answered["afterwards"] == answered["plain"][0]


def test_nothing_is_written_once_ready(kubectl: Kubectl, finished: Finished) -> None:
    """Over at least a minute, and after the same file was applied again."""
    remaining = 60 - (time.monotonic() - finished.ready_at)
    if remaining > 0:
        time.sleep(remaining)  # the minute itself is what is tested
    assert versions(kubectl) == finished.versions
    kubectl.apply(run_named(RUN))
    time.sleep(3)  # time to do something wrong
    assert versions(kubectl) == finished.versions


def test_deleting_the_run_takes_its_children_and_no_claim(kubectl: Kubectl, finished: Finished) -> None:
    kubectl("delete", KIND, RUN)

    def children() -> list[str]:
        kinds = [kind for kind in (*KINDS, "pods") if kind != "persistentvolumeclaims"]
        return [item["metadata"]["name"] for kind in kinds for item in kubectl.list(kind, f"{LABEL}={RUN}")]

    kubectl.wait_for("all children to go", lambda: not children(), timeout=90)
    assert kubectl.get("persistentvolumeclaim", CLAIM), "the user's claim went with the run"
    assert kubectl.get("persistentvolumeclaim", f"{RUN}-workspace"), "a workspace is retained unless told otherwise"
