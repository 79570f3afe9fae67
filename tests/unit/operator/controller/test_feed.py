"""Which run an event is about, and how soon it is worth a look."""

from typing import Any

import pytest

from falcon_operator.controller.feed import CHILD_DELAY, CHILDREN, DELETED_DELAY, key_of, watching
from falcon_operator.objects import Key

RUN = {"kind": "FalconFineTune", "metadata": {"namespace": "ml", "name": "r"}}
POD = {"kind": "Pod", "metadata": {"namespace": "ml", "name": "p", "labels": {"falcon-finetune.dev/run": "r"}}}
ALIEN = {"kind": "Pod", "metadata": {"namespace": "ml", "name": "q"}}


@pytest.mark.parametrize(
    ("kind", "obj", "expected"),
    [
        pytest.param("MODIFIED", RUN, (Key("ml", "r"), 0.0), id="a run at once"),
        pytest.param(None, RUN, (Key("ml", "r"), 0.0), id="a run of the first list at once"),
        pytest.param("ADDED", POD, (Key("ml", "r"), CHILD_DELAY), id="a child after the burst it comes in"),
        pytest.param("DELETED", POD, (Key("ml", "r"), DELETED_DELAY), id="a deleted child after its run may be gone"),
        pytest.param("ADDED", ALIEN, None, id="an object without our label never"),
    ],
)
def test_the_key_of_an_event(kind: str | None, obj: dict[str, Any], expected: tuple[Key, float] | None) -> None:
    assert key_of(kind, obj) == expected


def test_children_are_selected_on_the_server() -> None:
    settings = watching(())
    for resource in CHILDREN:
        assert settings.watching.label_selectors[resource] == "falcon-finetune.dev/run"
