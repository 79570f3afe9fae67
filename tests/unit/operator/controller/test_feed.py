"""Which run an event is about, and how soon it is worth a look."""

from typing import Any

import pytest

from falcon_operator.controller.feed import CHILD_DELAY, CHILDREN, DELETED_DELAY, delay_of, keys_of, watching
from falcon_operator.objects import Key

RUN = {"kind": "FalconFineTune", "metadata": {"namespace": "ml", "name": "r"}}
POD = {"kind": "Pod", "metadata": {"namespace": "ml", "name": "p", "labels": {"falcon-finetune.dev/run": "r"}}}
ALIEN = {"kind": "Pod", "metadata": {"namespace": "ml", "name": "q"}}


SHARED = {
    "kind": "Service",
    "metadata": {
        "namespace": "ml",
        "name": "assistant",
        "labels": {"falcon-finetune.dev/run": "r"},
        "ownerReferences": [{"kind": "FalconFineTune", "name": name} for name in ("q", "r")],
    },
}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(RUN, {Key("ml", "r")}, id="of a run that run"),
        pytest.param(POD, {Key("ml", "r")}, id="of a child its run"),
        pytest.param(SHARED, {Key("ml", "q"), Key("ml", "r")}, id="of a Service that runs share all of them"),
        pytest.param(ALIEN, set(), id="of an object without our label none"),
    ],
)
def test_the_runs_that_an_event_concerns(obj: dict[str, Any], expected: set[Key]) -> None:
    assert keys_of(obj) == expected


@pytest.mark.parametrize(
    ("kind", "obj", "expected"),
    [
        pytest.param("MODIFIED", RUN, 0.0, id="a run at once"),
        pytest.param(None, RUN, 0.0, id="a run of the first list at once"),
        pytest.param("ADDED", POD, CHILD_DELAY, id="a child after the burst it comes in"),
        pytest.param("DELETED", POD, DELETED_DELAY, id="a deleted child after its run may be gone"),
    ],
)
def test_how_soon_an_event_is_worth_a_look(kind: str | None, obj: dict[str, Any], expected: float) -> None:
    assert delay_of(kind, obj) == expected


def test_children_are_selected_on_the_server() -> None:
    settings = watching(())
    for resource in CHILDREN:
        assert settings.watching.label_selectors[resource] == "falcon-finetune.dev/run"
