"""The API client: one function a verb, for every kind, JSON objects in and out.

Raw requests on kubernetes.aio's ApiClient: its typed models would be built and taken apart again for every object, and
have no model of our own resource. Every request is bounded in time; writes ask `may_write` first, which raises once
leadership is in doubt.
"""

import json
from collections.abc import Callable
from typing import Any

from kubernetes.aio.client import ApiClient

from falcon_operator import metrics
from falcon_operator.api.names import API_VERSION, FIELD_MANAGER, PLURAL
from falcon_operator.objects import Object, uid

TIMEOUT = 15.0
"""Seconds for one request: some hundred times what a healthy API server needs."""
PAGE = 500
STRICT = [("fieldValidation", "Strict")]

Query = list[tuple[str, str]]

PREFIXES = {
    "FalconFineTune": (f"/apis/{API_VERSION}", PLURAL),
    "Job": ("/apis/batch/v1", "jobs"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Event": ("/api/v1", "events"),
}
"""Where each kind lives."""


REFUSALS = frozenset({400, 403, 422})
"""What would be refused again unless something changes: invalid, forbidden by policy, quota or permissions."""


class ApiError(Exception):
    """The API server did not do what was asked."""

    def __init__(self, status: int, message: str, request: str) -> None:
        super().__init__(f"{request}: {status}: {message}")
        self.status, self.message = status, message


def path(kind: str, namespace: str | None, name: str | None = None) -> str:
    """The URL path of an object, of a namespace's collection, or of the whole collection."""
    prefix, plural = PREFIXES[kind]
    middle = f"/namespaces/{namespace}" if namespace else ""
    return f"{prefix}{middle}/{plural}" + (f"/{name}" if name else "")


def _always() -> None:
    return None


class Kube:
    """The verbs. Raises ApiError for a refusal, OSError or TimeoutError where there was no answer."""

    def __init__(self, api: ApiClient, may_write: Callable[[], None] = _always) -> None:
        self._api, self._may_write = api, may_write

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, or None where there is none."""
        try:
            return _whole(kind, await self._request("GET", path(kind, namespace, name)))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def find(self, kind: str, namespace: str | None, *, labels: str = "", fields: str = "") -> list[Object]:
        """All objects that match, read in pages."""
        found: list[Object] = []
        following = ""
        while True:
            given = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields, "continue": following}
            query = [(name, value) for name, value in given.items() if value]
            page = await self._request("GET", path(kind, namespace), query)
            found += [_whole(kind, item) for item in page["items"]]
            following = page["metadata"].get("continue") or ""
            if not following:
                return found

    async def create(self, obj: Object) -> Object | None:
        """Creates the object; None where one of this name exists already.

        Strict: a misspelt field in the parts of podTemplate that are passed on as they are is refused, not dropped.
        """
        try:
            return await self._write("POST", path(obj["kind"], obj["metadata"]["namespace"]), obj, STRICT)
        except ApiError as error:
            if error.status == 409:
                return None
            raise

    async def apply(self, obj: Object) -> Object:
        """Server-side apply, as the manager of the fields that `obj` names."""
        query = [("fieldManager", FIELD_MANAGER), ("force", "true")]
        target = path(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
        return await self._write("PATCH", target, obj, query, content="application/apply-patch+yaml")

    async def change(self, obj: Object, fields: Object) -> Object | None:
        """Sets fields of exactly this version of the object; None where it changed or went since it was read."""
        metadata = {key: obj["metadata"][key] for key in ("uid", "resourceVersion")}
        target = path(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
        try:
            return await self._write(
                "PATCH", target, fields | {"metadata": metadata}, STRICT, content="application/merge-patch+json"
            )
        except ApiError as error:
            if error.status in (404, 409):
                return None
            raise

    async def delete(self, obj: Object) -> bool:
        """Deletes exactly this object, not one that took its name since; False where it is gone already."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid(obj)},
        }
        target = path(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
        try:
            await self._write("DELETE", target, body)
        except ApiError as error:
            if error.status in (404, 409):
                return False
            raise
        return True

    async def write_status(self, obj: Object) -> Object | None:
        """Writes the status of `obj`; None where the object changed since it was read, so that it must be read anew."""
        target = path(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"]) + "/status"
        try:
            return await self._write("PUT", target, obj)
        except ApiError as error:
            if error.status in (404, 409):
                return None
            raise

    async def _write(
        self,
        verb: str,
        target: str,
        body: Object,
        query: Query | None = None,
        content: str = "application/json",
    ) -> Object:
        self._may_write()
        return dict(await self._request(verb, target, query, body, content))

    async def _request(
        self,
        verb: str,
        target: str,
        query: Query | None = None,
        body: Object | None = None,
        content: str | None = None,
    ) -> Any:
        headers = {"Accept": "application/json"} | ({"Content-Type": content} if content else {})
        request = await self._api.param_serialize(
            verb, target, query_params=query or [], header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        # call_api does not raise on a refusal: the status is looked at here.
        response = await self._api.call_api(*request, _request_timeout=TIMEOUT)
        data = await response.read()
        metrics.API_CALLS.labels(verb=verb, code=str(response.status)).inc()
        if response.status >= 300:
            raise ApiError(response.status, _sentence(data), f"{verb} {target}")
        return json.loads(data)


def _whole(kind: str, item: Object) -> Object:
    """Lists leave out the kind of their items; managedFields are bulk that is read of Deployments alone."""
    if kind != "Deployment":
        item["metadata"].pop("managedFields", None)
    prefix, _ = PREFIXES[kind]
    item.setdefault("kind", kind)
    item.setdefault("apiVersion", prefix.removeprefix("/apis/").removeprefix("/api/"))
    return item


def _sentence(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")[:500]
