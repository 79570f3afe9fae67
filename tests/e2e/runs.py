"""FalconFineTunes for the tests: the demo's own example, with a few fields changed."""

import copy
from collections.abc import Mapping
from typing import Any

import yaml

from examples.demo.inputs import REPOSITORY
from examples.demo.kube import Kubectl, Manifest, condition_of

KIND = "falconfinetune"
EXAMPLE: Manifest = yaml.safe_load((REPOSITORY / "examples" / "dolly-tiny.yaml").read_text())


def merged(into: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `into` with `changes` laid over it, mapping by mapping; None takes a field away."""
    result = copy.deepcopy(dict(into))
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def run_named(name: str, **changes: Any) -> Manifest:
    """The demo's run under another name, with parts of its spec changed."""
    return merged(EXAMPLE, {"metadata": {"name": name}, "spec": changes})


ADAPTER_ONLY: Mapping[str, Any] = {"merge": {"enabled": False}, "serve": {"enabled": False}}
"""Changes that end a run with its adapter."""


def status_of(kubectl: Kubectl, name: str) -> dict[str, Any]:
    """The run's status, empty before the operator wrote one."""
    status: dict[str, Any] = (kubectl.get(KIND, name) or {}).get("status", {})
    return status


def is_true(kubectl: Kubectl, name: str, condition: str) -> bool:
    """Whether the condition is True."""
    return condition_of({"status": status_of(kubectl, name)}, condition).get("status") == "True"


def wait_true(kubectl: Kubectl, name: str, condition: str, *, timeout: float = 400) -> dict[str, Any]:
    """Waits for the condition and returns the status. Fails at once, with the reason, when the run is stalled."""

    def reached() -> bool:
        stalled = condition_of({"status": status_of(kubectl, name)}, "Stalled")
        assert stalled.get("status") != "True", f"{name} is stalled: {stalled['reason']}: {stalled['message']}"
        return is_true(kubectl, name, condition)

    try:
        kubectl.wait_for(f"{name} {condition}", reached, timeout=timeout)
    except TimeoutError as error:
        pods = kubectl("get", "pods", "-o", "wide")
        raise AssertionError(f"{error}\n{kubectl('describe', KIND, name)}\n{pods}") from error
    return status_of(kubectl, name)
