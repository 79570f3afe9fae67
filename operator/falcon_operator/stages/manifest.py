"""What all children have in common: labels, owner, content hash."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from falcon_operator.api.names import ATTEMPT_LABEL, HASH_ANNOTATION, RUN_LABEL, STAGE_LABEL, StageName
from falcon_operator.api.resource import FalconFineTune

Manifest = dict[str, Any]
"""A Kubernetes object in JSON form."""
MANAGED_BY = {"app.kubernetes.io/managed-by": "falcon-operator"}


def content_hash(content: object, length: int = 16) -> str:
    """Hex digest of JSON content, the same for the same content whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def labels(run: FalconFineTune, stage: StageName | None = None, attempt: int | None = None) -> dict[str, str]:
    """The labels that children are found by, and those that Kubernetes recommends."""
    found = {
        "app.kubernetes.io/name": "falcon-finetune",
        "app.kubernetes.io/instance": run.name,
        **MANAGED_BY,
        RUN_LABEL: run.name,
    }
    if stage:
        found |= {"app.kubernetes.io/component": stage, STAGE_LABEL: stage}
    if attempt is not None:
        found[ATTEMPT_LABEL] = str(attempt)
    return found


def selector(run: FalconFineTune, stage: StageName, attempt: int | None = None) -> dict[str, str]:
    """The labels that select a stage's pods; part of immutable fields, so these never change."""
    found = {RUN_LABEL: run.name, STAGE_LABEL: stage}
    return found if attempt is None else found | {ATTEMPT_LABEL: str(attempt)}


def child(
    run: FalconFineTune,
    kind: tuple[str, str],
    name: str,
    body: Manifest,
    *,
    stage: StageName | None = None,
    attempt: int | None = None,
    owned: bool = True,
    more: Mapping[str, str] | None = None,
) -> Manifest:
    """A child of the run: `kind` is (apiVersion, kind), `body` everything but the metadata.

    The annotation HASH_ANNOTATION holds the digest of labels and body: where it equals the one in the cluster, there
    is nothing to apply. `more` are further labels.
    """
    found = dict(more or {}) | labels(run, stage, attempt)
    metadata: Manifest = {
        "name": name,
        "namespace": run.namespace,
        "labels": found,
        "annotations": {HASH_ANNOTATION: content_hash([found, body])},
    }
    if owned:
        metadata["ownerReferences"] = [run.owner_reference()]
    api_version, kind_name = kind
    return {"apiVersion": api_version, "kind": kind_name, "metadata": metadata} | body
