"""The serve stage: a Deployment of the merged model, and the Service in front of it."""

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.config import config_map, run_config
from falcon_operator.stages.manifest import Manifest, child, selector
from falcon_operator.stages.naming import stage_name
from falcon_operator.stages.pod import PodPlan, pod_template
from falcon_operator.stages.settings import StageSettings
from falcon_operator.stages.workspace import access_mode
from falcon_trainer.config import Artifact
from falcon_trainer.layout import SERVE_PORT

GRACE_SECONDS = 60
"""Time to finish the answers that are being written."""
LOAD_SECONDS = 3600
"""Patience with a start: 360 GB of weights at 100 MB/s."""
SERVICE_PORT = 80


def serve_config(run: FalconFineTune, merged: Artifact) -> Manifest:
    """The ConfigMap of the stage; `merged` is the verified model."""
    return config_map(run, "serve", run_config(run, "serve", merged=merged))


def serve_service(run: FalconFineTune) -> Manifest:
    """The Service `NAME-serve`."""
    spec = {
        "selector": selector(run, "serve"),
        "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
    }
    return child(run, ("v1", "Service"), stage_name(run, "serve"), {"spec": spec}, stage="serve")


def serve_deployment(run: FalconFineTune, settings: StageSettings, merged: Artifact) -> Manifest:
    """The Deployment `NAME-serve`."""
    plan = PodPlan(
        stage="serve",
        config_map=serve_config(run, merged)["metadata"]["name"],
        grace_seconds=GRACE_SECONDS,
        restart_policy="Always",
        gpus=run.spec.serve.gpus,
        read_only_workspace=True,
        shared_memory=True,
        ports={"http": SERVE_PORT},
        probes=_probes(),
    )
    spec: Manifest = {
        "replicas": 0 if run.spec.suspend else run.spec.serve.replicas,
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": LOAD_SECONDS + 300,
        "strategy": _strategy(run),
        "selector": {"matchLabels": selector(run, "serve")},
        "template": pod_template(run, settings, plan),
    }
    return child(run, ("apps/v1", "Deployment"), stage_name(run, "serve"), {"spec": spec}, stage="serve")


def _strategy(run: FalconFineTune) -> Manifest:
    """The old server answers until the new one is ready, except where only one node can mount the workspace: there a
    new pod on another node would wait for the old one for ever.
    """
    if access_mode(run) == "ReadWriteOnce":
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def _probes() -> Manifest:
    """`/ready` answers after a real completion, `/health` once the server lives; liveness waits for the start."""
    period = 10

    def ask(path: str, failures: int) -> Manifest:
        return {
            "httpGet": {"path": path, "port": "http"},
            "periodSeconds": period,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": ask("/ready", LOAD_SECONDS // period),
        "readinessProbe": ask("/ready", 3),
        "livenessProbe": ask("/health", 6),
    }
