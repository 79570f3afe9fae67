"""Where the pods lie that share a volume which only one node can mount."""

from dataclasses import dataclass, field

from falcon_operator.api.kubernetes_types import wire_or_empty
from falcon_operator.api.names import RUN_LABEL, StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.manifest import Manifest
from falcon_operator.stages.pod import GPU_TOLERATION, replaces_spreading
from falcon_operator.stages.template import merged_template
from falcon_operator.stages.workspace import access_mode


@dataclass(frozen=True)
class Placement:
    """What a PodPlan gets for its pod to lie where the volume is."""

    extra: Manifest = field(default_factory=dict)
    tolerations: tuple[Manifest, ...] = ()


def at_the_volume(run: FalconFineTune, stage: StageName) -> Placement:
    """The node of the run's other pods, for a workspace that one node mounts at a time: on another node the pod would
    wait for the server's end, which never comes.

    A pod that asks to be near pods which it is one of itself may go anywhere while there are none, so the rule holds
    from the second pod on. Of a claim of the user's nothing is known: its pods may need an affinity in podTemplate.
    """
    if access_mode(run) != "ReadWriteOnce" or replaces_spreading(run, stage):
        return Placement()
    near = {"labelSelector": {"matchLabels": {RUN_LABEL: run.name}}, "topologyKey": "kubernetes.io/hostname"}
    own = wire_or_empty(merged_template(run.spec.pod_template, stage).affinity)
    affinity = own | {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [near]}}
    # The server's node may be kept free for pods that ask for a GPU.
    return Placement({"affinity": affinity}, (GPU_TOLERATION,) if run.spec.serve.gpus else ())
