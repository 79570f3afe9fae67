"""The serve stage: a Deployment of the merged model, the Service in front of it, and what drains may take of it.

The pod is the engine's: `serve_transformers` or `serve_vllm`.
"""

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.policy.engine import engine_of
from falcon_operator.stages import serve_transformers, serve_vllm
from falcon_operator.stages.manifest import Manifest, child, selector
from falcon_operator.stages.naming import stage_name
from falcon_operator.stages.pod import PodPlan, pod_template
from falcon_operator.stages.settings import StageSettings
from falcon_trainer.config import Artifact

LOAD_SECONDS = 3600
"""Patience with a start: 360 GB of weights at 100 MB/s."""
SERVICE_PORT = 80


def serve_config(run: FalconFineTune, merged: Artifact) -> Manifest:
    """The ConfigMap of the stage; `merged` is the verified model."""
    return serve_vllm.config(run) if _by_vllm(run) else serve_transformers.config(run, merged)


def serve_service(run: FalconFineTune) -> Manifest:
    """The Service `NAME-serve`."""
    spec = {"selector": selector(run, "serve"), "ports": service_ports()}
    return child(run, ("v1", "Service"), stage_name(run, "serve"), {"spec": spec}, stage="serve")


def service_ports() -> list[Manifest]:
    """The ports of a Service in front of servers, whichever engine they have."""
    return [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}]


def serve_budget(run: FalconFineTune) -> Manifest:
    """The PodDisruptionBudget `NAME-serve`: nodes are drained one replica at a time. One that answers nobody anyway
    holds no drain up.
    """
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector(run, "serve")},
    }
    kind = ("policy/v1", "PodDisruptionBudget")
    return child(run, kind, stage_name(run, "serve"), {"spec": spec}, stage="serve")


def serve_deployment(run: FalconFineTune, settings: StageSettings, merged: Artifact) -> Manifest:
    """The Deployment `NAME-serve`. The number of replicas stands outside its hash: it is compared by itself, since an
    autoscaler may own it (`flow.replicas`).
    """
    spec: Manifest = {
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": LOAD_SECONDS + 300,
        # The old server answers until the new one does, and stays for good where the new one never does: where only one
        # node can mount the workspace the new one starts beside it (`nearby`), or waits there for room.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "selector": {"matchLabels": selector(run, "serve")},
        "template": pod_template(run, settings, _plan(run, settings, merged)),
    }
    made = child(run, ("apps/v1", "Deployment"), stage_name(run, "serve"), {"spec": spec}, stage="serve")
    made["spec"] = spec | {"replicas": 0 if run.spec.suspend else run.spec.serve.replicas}
    return made


def _by_vllm(run: FalconFineTune) -> bool:
    return engine_of(run.spec.serve) == "vllm"


def _plan(run: FalconFineTune, settings: StageSettings, merged: Artifact) -> PodPlan:
    if _by_vllm(run):
        return serve_vllm.plan(run, settings, merged, LOAD_SECONDS)
    return serve_transformers.plan(run, merged, LOAD_SECONDS)
