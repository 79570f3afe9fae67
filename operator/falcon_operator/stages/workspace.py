"""The claim of the workspace, where the run does not bring its own."""

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.manifest import Manifest, child
from falcon_operator.stages.naming import workspace_claim_name


def access_mode(run: FalconFineTune) -> str | None:
    """Access mode of the claim that the operator creates; None for a claim of the user's, whose mode is unknown here.

    One node at a time is enough for a gang of one node and a single server; all else shares the volume between nodes.
    """
    spec = run.spec
    if spec.workspace.claim_name:
        return None
    alone = spec.gang.nodes == 1 and spec.serve.replicas == 1
    return spec.workspace.access_mode or ("ReadWriteOnce" if alone else "ReadWriteMany")


def workspace_claim(run: FalconFineTune) -> Manifest | None:
    """The claim to create, or None where the run names one. A retained claim has no owner: it outlives the run."""
    wanted = run.spec.workspace
    if wanted.claim_name:
        return None
    spec: Manifest = {"accessModes": [access_mode(run)], "resources": {"requests": {"storage": wanted.size}}}
    if wanted.storage_class_name:
        spec["storageClassName"] = wanted.storage_class_name
    return child(
        run,
        ("v1", "PersistentVolumeClaim"),
        workspace_claim_name(run),
        {"spec": spec},
        owned=wanted.when_deleted == "Delete",
    )
