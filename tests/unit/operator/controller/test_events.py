"""The Events that tell of transitions."""

from typing import Any

from falcon_operator.controller.apply import event
from falcon_operator.controller.flow.report import Occasion
from tests.unit.operator.api.runs import resource
from tests.unit.operator.policy.pods import NOW


def told(identity: str = "Prepared/True", message: str = "m") -> dict[str, Any]:
    run = resource()
    run["metadata"] |= {"resourceVersion": "7"}
    occasion = Occasion(reason="Prepared", message=message, action="prepare", identity=identity, warning=True)
    return event(run, occasion, "pod-1", NOW)


def test_the_same_transition_has_the_same_name_and_another_one_another() -> None:
    assert told()["metadata"]["name"] == told(message="said otherwise")["metadata"]["name"]
    assert told()["metadata"]["name"] != told("Prepared/False")["metadata"]["name"]


def test_a_long_message_is_cut_at_the_apis_limit_in_bytes() -> None:
    text = told(message="ä" * 2000)["message"]
    assert len(text.encode()) <= 1024
    assert set(text) == {"ä"}


def test_the_run_is_named() -> None:
    found = told()
    assert found["involvedObject"]["kind"] == "FalconFineTune"
    assert found["involvedObject"]["uid"] == resource()["metadata"]["uid"]
    assert (found["type"], found["reason"], found["action"]) == ("Warning", "Prepared", "prepare")
