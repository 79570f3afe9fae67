"""Whose the number of the server's replicas is: ours until an autoscaler, or a person, has set it.

The API server notes who set a field last. What it notes of `spec.replicas` decides: another's number is left alone,
which means that it is left out of what we apply. Only a suspension goes before it, and gives the number back to the
run: 0 while it lasts, `serve.replicas` when it ends.
"""

from falcon_operator.api.names import FIELD_MANAGER
from falcon_operator.objects import Object
from falcon_operator.stages.manifest import Manifest


def left_alone(wanted: Manifest, found: Object | None, *, suspend: bool) -> Manifest:
    """The Deployment as it should be applied over `found`."""
    if suspend or found is None or not owned_by_others(found):
        return wanted
    spec = {name: value for name, value in wanted["spec"].items() if name != "replicas"}
    return wanted | {"spec": spec}


def differ(wanted: Manifest, found: Object) -> bool:
    """Whether the number is ours to set and is another one."""
    return "replicas" in wanted["spec"] and replicas_of(wanted) != replicas_of(found)


def replicas_of(deployment: Object) -> int:
    """How many pods the Deployment asks for."""
    return int(deployment["spec"].get("replicas", 1))


def owned_by_others(deployment: Object) -> bool:
    """Whether somebody else has set the number of replicas. One that we have set as well is ours: it was 0 already when
    the run was suspended, say.
    """
    entries = deployment["metadata"].get("managedFields") or []
    owners = {
        entry.get("manager") for entry in entries if "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
    }
    return bool(owners) and FIELD_MANAGER not in owners
