"""The train stage: a gang of pods, one Indexed Job an attempt, and the headless Service that gives them names."""

from falcon_operator.api.names import QUEUE_LABEL, QUEUE_PRIORITY_LABEL
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.config import config_map, run_config
from falcon_operator.stages.manifest import Manifest, child, selector
from falcon_operator.stages.naming import rendezvous_host, stage_name, train_job_name
from falcon_operator.stages.pod import PodPlan, pod_template, replaces_spreading
from falcon_operator.stages.settings import StageSettings
from falcon_trainer.layout import RENDEZVOUS_PORT

GRACE_SECONDS = 120
"""Time to write a last checkpoint; spot nodes warn 30 to 120 seconds ahead."""


def train_config(run: FalconFineTune) -> Manifest:
    """The ConfigMap of the stage."""
    return config_map(run, "train", run_config(run, "train"))


def train_service(run: FalconFineTune) -> Manifest:
    """The headless Service `NAME-train`, the subdomain of every attempt's pods.

    Addresses are published before pods are ready: the gang meets through them.
    """
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": selector(run, "train"),
        "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT, "protocol": "TCP"}],
    }
    return child(run, ("v1", "Service"), stage_name(run, "train"), {"spec": spec}, stage="train")


def train_job(run: FalconFineTune, settings: StageSettings, attempt: int) -> Manifest:
    """The Indexed Job `NAME-train-ATTEMPT`. It never replaces a pod: a gang that lost one is lost, and the next
    attempt is the operator's to start.
    """
    nodes = run.spec.gang.nodes
    spec: Manifest = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "template": pod_template(run, settings, _plan(run, attempt)),
    }
    queue = queue_labels(run)
    if queue:
        spec["suspend"] = True  # the queue admits the gang as a whole, by taking this away
    name = train_job_name(run, attempt)
    return child(run, ("batch/v1", "Job"), name, {"spec": spec}, stage="train", attempt=attempt, more=queue)


def queue_labels(run: FalconFineTune) -> dict[str, str]:
    """What Kueue reads on a Job: the queue and the priority that the run names; empty where it names no queue."""
    given = run.metadata.labels
    return {name: given[name] for name in (QUEUE_LABEL, QUEUE_PRIORITY_LABEL) if name in given and QUEUE_LABEL in given}


def _plan(run: FalconFineTune, attempt: int) -> PodPlan:
    gang = run.spec.gang
    extra: Manifest = {"subdomain": stage_name(run, "train")}
    if gang.nodes > 1 and not replaces_spreading(run, "train"):
        extra["topologySpreadConstraints"] = [_one_node_each(run, attempt)]
    return PodPlan(
        stage="train",
        attempt=attempt,
        config_map=train_config(run)["metadata"]["name"],
        grace_seconds=GRACE_SECONDS,
        gpus=gang.gpus_per_node,
        source_uris=(run.spec.model.source,),
        shared_memory=True,
        env={"FALCON_ATTEMPT": str(attempt), "FALCON_RENDEZVOUS_HOST": rendezvous_host(run, attempt)},
        ports={"rendezvous": RENDEZVOUS_PORT},
        tolerations=_node_loss(gang.node_loss_toleration_seconds),
        extra=extra,
    )


def _one_node_each(run: FalconFineTune, attempt: int) -> Manifest:
    """With fewer than `minDomains` nodes in reach the global minimum counts as 0, so that a skew of 1 allows one pod a
    node, whatever the number of nodes (a plain spread would stack pods on the nodes there are, and an autoscaler would
    never add one).
    """
    return {
        "topologyKey": "kubernetes.io/hostname",
        "maxSkew": 1,
        "minDomains": run.spec.gang.nodes,
        "whenUnsatisfiable": "DoNotSchedule",
        "nodeAffinityPolicy": "Honor",
        "nodeTaintsPolicy": "Honor",
        "labelSelector": {"matchLabels": selector(run, "train", attempt)},
    }


def _node_loss(seconds: int) -> tuple[Manifest, ...]:
    return tuple(
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": seconds,
        }
        for taint in ("not-ready", "unreachable")
    )
