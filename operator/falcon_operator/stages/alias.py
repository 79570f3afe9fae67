"""The Service of `serve.alias`: a name that stays while the runs behind it change."""

from collections.abc import Collection

from falcon_operator.api.names import ALIAS_LABEL, API_VERSION, HASH_ANNOTATION, KIND, RUN_LABEL, STAGE_LABEL
from falcon_operator.policy.alias import Claimant
from falcon_operator.stages.manifest import MANAGED_BY, Manifest, content_hash
from falcon_operator.stages.serve import service_ports


def alias_service(namespace: str, alias: str, holder: Claimant, claimants: Collection[Claimant]) -> Manifest:
    """The Service `ALIAS`, which leads to the holder's server. It goes with the last of the claimants, so it belongs to
    all of them and is controlled by none. Its label makes its changes known to the holder.
    """
    labels = MANAGED_BY | {RUN_LABEL: holder.name, ALIAS_LABEL: alias}
    spec: Manifest = {
        "selector": {RUN_LABEL: holder.name, STAGE_LABEL: "serve"},
        "ports": service_ports(),
    }
    owners = [
        {"apiVersion": API_VERSION, "kind": KIND, "name": each.name, "uid": each.uid}
        for each in sorted(claimants, key=lambda each: each.name)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": alias,
            "namespace": namespace,
            "labels": labels,
            "annotations": {HASH_ANNOTATION: content_hash([labels, spec, owners])},
            "ownerReferences": owners,
        },
        "spec": spec,
    }
