"""Watch events become keys in the queue; nothing else happens here.

kopf reconnects, follows bookmarks and knows when a watch must be listed anew. An event only says that something may
have happened to a run: what it was, the look finds out.
"""

from typing import Any

import kopf

from falcon_operator.api.names import GROUP, KIND, PLURAL, RUN_LABEL, VERSION
from falcon_operator.controller.flow.alias import owners
from falcon_operator.controller.queue import WorkQueue
from falcon_operator.objects import Key

CHILD_DELAY = 0.3
"""Seconds: the events of a gang's pods come in bursts and are worth one look."""
DELETED_DELAY = 1.0
"""Seconds: when a run is deleted, the deletion of a child can be seen before that of the run, which must not make the
child anew."""
CHILDREN = (
    ("batch", "v1", "jobs"),
    ("apps", "v1", "deployments"),
    ("", "v1", "pods"),
    ("", "v1", "services"),
    ("", "v1", "persistentvolumeclaims"),
)


def handlers(queue: WorkQueue) -> kopf.OperatorRegistry:
    """kopf's handlers: all kinds end in `queue`."""
    registry = kopf.OperatorRegistry()

    # A registry of one's own has no login; without one kopf stops with "Ran out of valid credentials".
    @kopf.on.login(registry=registry)
    def login(**given: Any) -> Any:
        return kopf.login_with_service_account(**given) or kopf.login_with_kubeconfig(**given)

    async def seen(event: Any, **_: Any) -> None:
        delay = delay_of(event["type"], event["object"])
        for key in keys_of(event["object"]):
            queue.add(key, delay)

    kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(seen)
    for group, version, plural in CHILDREN:
        kopf.on.event(group, version, plural, registry=registry)(seen)
    return registry


def keys_of(obj: dict[str, Any]) -> set[Key]:
    """The runs that an event about `obj` concerns: the run itself, or those that a child is made for or belongs to."""
    metadata = obj["metadata"]
    if obj.get("kind") == KIND:
        return {Key(metadata["namespace"], metadata["name"])}
    run = (metadata.get("labels") or {}).get(RUN_LABEL)
    return {Key(metadata["namespace"], run), *owners(obj)} if run else set()


def delay_of(kind: str | None, obj: dict[str, Any]) -> float:
    """The seconds until an event is worth a look."""
    if obj.get("kind") == KIND:
        return 0.0
    return DELETED_DELAY if kind == "DELETED" else CHILD_DELAY


def watching(namespaces: tuple[str, ...]) -> kopf.OperatorSettings:
    """kopf's settings: watches only, no writes, children selected on the server, quick to stop."""
    settings = kopf.OperatorSettings()
    for resource in CHILDREN:
        settings.watching.label_selectors[resource] = RUN_LABEL
    settings.watching.chunk_size = 500
    settings.posting.enabled = False
    settings.scanning.disabled = bool(namespaces)  # it lists CRDs and namespaces, for which there may be no permission
    settings.queueing.idle_timeout = 1.0
    settings.queueing.exit_timeout = 1.0
    settings.process.ultimate_exiting_timeout = None  # else kopf kills the process that outlives it
    settings.networking.error_backoffs = [1, 1, 2, 3, 5, 8, 10]
    return settings
