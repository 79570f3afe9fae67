"""One run of a campaign: trains, is struck, ends; what it cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from examples.demo.kube import Kubectl, Manifest
from tests.chaos.plan import ENDS_AN_ATTEMPT, Fault, Strike
from tests.chaos.strikes import strike
from tests.cluster import faults
from tests.e2e.gang import newest_attempt, wait_for_step
from tests.e2e.runs import ADAPTER_ONLY, merged, run_named, status_of, wait_true

STEPS, EVERY, RANKS = 80, 5, 2
LAST_STRIKE = 50
"""Steps that are left then take longer than to see that this one is done."""
WORKSPACE = "chaos"
SPEC: dict[str, Any] = {
    "gang": {"nodes": RANKS, "processesPerNode": 1, "nodeLossTolerationSeconds": 5},
    "training": {"maxSteps": STEPS, "checkpoint": {"everySteps": EVERY}},
    "workspace": {"claimName": WORKSPACE, "size": None, "accessMode": None},
}
PATIENCE = 600
"""Seconds for anything; a node takes most of a minute to be missed."""


@dataclass
class Struck:
    """A run and what happened to it."""

    name: str
    strikes: Sequence[Strike] = ()
    hits: list[str] = field(default_factory=list)
    """What each strike hit."""
    repeated: int = 0
    """Steps that were trained twice."""
    attempts: int = 0


def adapter_only(name: str) -> Manifest:
    """A run of the campaign: all are alike but for their names."""
    return run_named(name, **merged(SPEC, ADAPTER_ONLY))


def endure(kubectl: Kubectl, name: str, strikes: Sequence[Strike], say: Callable[[str], None]) -> Struck:
    """Applies the run, strikes it as planned, waits for its adapter."""
    run = Struck(name, strikes)
    kubectl.apply(adapter_only(name))
    attempt = 1
    for planned in strikes:
        wait_for_step(kubectl, name, planned.step, attempt=attempt, timeout=PATIENCE)
        hit = strike(kubectl, name, attempt, planned)
        run.hits.append(hit)
        say(f"{name}: step {planned.step}: {planned.fault}: {hit}")
        attempt = _after(kubectl, name, attempt, planned.fault, hit)
    status = wait_true(kubectl, name, "Trained", timeout=PATIENCE)
    run.attempts, run.repeated = len(status["attempts"]), repeated(status["attempts"])
    return run


def _after(kubectl: Kubectl, name: str, attempt: int, fault: Fault, hit: str) -> int:
    """The attempt that is the newest once the fault has had its effect; a lost node gets its power back."""
    if fault not in ENDS_AN_ATTEMPT:
        return attempt
    try:
        kubectl.wait_for(f"the end of attempt {attempt}", lambda: _over(kubectl, name, attempt), timeout=PATIENCE)
    finally:
        if fault is Fault.NODE_LOST:
            faults.start_node(hit)
    kubectl.wait_for("the next attempt", lambda: newest_attempt(kubectl, name) > attempt, timeout=PATIENCE)
    return attempt + 1


def _over(kubectl: Kubectl, name: str, attempt: int) -> bool:
    return any(each["attempt"] == attempt and "endTime" in each for each in status_of(kubectl, name)["attempts"])


def repeated(attempts: Sequence[Manifest]) -> int:
    """Steps that were done and had to be done again, as the status tells them."""
    pairs = pairwise(attempts)
    return sum(max(0, (old.get("lastStep") or 0) - (new.get("resumedFromStep") or 0)) for old, new in pairs)
