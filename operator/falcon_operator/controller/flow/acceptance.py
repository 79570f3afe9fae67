"""Accept: the spec is checked and its digest written down, before the first child exists."""

from falcon_operator.api.resource import spec_hash
from falcon_operator.api.status import ConditionType
from falcon_operator.controller.flow.report import Report
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.policy.acceptance import problems
from falcon_operator.policy.conditions import Finding

KIND = ConditionType.ACCEPTED
FIXED = ("model", "dataset", "lora", "training")
"""Parts of the spec that `spec_hash` covers; the CRD's rules refuse to change them, so this is the second lock."""


def accept(snapshot: Snapshot) -> Report:
    """The first ring that needs code: what the schema cannot say, and that what was accepted stays as it was."""
    run = snapshot.run
    found = list(snapshot.problems) if run is None else problems(run)
    if run is None or found:
        text = "; ".join(str(problem) for problem in found)
        return Report(finding=Finding(type=KIND, status="False", reason="InvalidSpec", message=text, final=True))
    digest, accepted = spec_hash(run.spec), run.status.accepted_spec_hash
    if accepted not in (None, digest):
        text = f"spec: {', '.join(FIXED)} differ from what was accepted: restore them, or make a new run"
        return Report(finding=Finding(type=KIND, status="False", reason="SpecChanged", message=text, final=True))
    finding = Finding(type=KIND, status="True", reason="Valid", message="the spec is valid")
    # The digest must be in the cluster before a child is: this look only writes it, the next one goes on.
    return Report(finding=finding, facts={"accepted_spec_hash": digest}, again=None if accepted else 0.0)


def just_accepted(snapshot: Snapshot) -> bool:
    """Whether this look is the one that accepts the run."""
    return snapshot.status.accepted_spec_hash is None
