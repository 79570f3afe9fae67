"""A server's pod with `transformers serve` behind our own API layer: the trainer image, for CPUs and small models."""

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.config import config_map, run_config
from falcon_operator.stages.manifest import Manifest
from falcon_operator.stages.nearby import at_the_volume
from falcon_operator.stages.pod import PodPlan
from falcon_trainer.config import Artifact, SecretKey
from falcon_trainer.layout import SERVE_PORT

GRACE_SECONDS = 60
"""Time to finish the answers that are being written."""
PERIOD_SECONDS = 10


def config(run: FalconFineTune, merged: Artifact) -> Manifest:
    """What the stage is told; `merged` is the verified model."""
    return config_map(run, "serve", run_config(run, "serve", merged=merged))


def plan(run: FalconFineTune, merged: Artifact, load_seconds: int) -> PodPlan:
    """The pod; it may take `load_seconds` to give its first token."""
    near = at_the_volume(run, "serve")
    return PodPlan(
        stage="serve",
        config_map=config(run, merged)["metadata"]["name"],
        grace_seconds=GRACE_SECONDS,
        restart_policy="Always",
        gpus=run.spec.serve.gpus,
        read_only_workspace=True,
        shared_memory=True,
        secret_env=api_key(run),
        ports={"http": SERVE_PORT},
        probes=_probes(load_seconds),
        extra=near.extra,
    )


def api_key(run: FalconFineTune) -> dict[str, SecretKey]:
    """The variable that tells programs of ours the bearer token: the server, and those that ask one."""
    key = run.spec.serve.api_key_secret_ref
    return {"FALCON_API_KEY": key} if key else {}


def _probes(load_seconds: int) -> Manifest:
    """`/ready` answers after a real completion, `/health` once the server lives; liveness waits for the start."""

    def ask(path: str, failures: int) -> Manifest:
        return {
            "httpGet": {"path": path, "port": "http"},
            "periodSeconds": PERIOD_SECONDS,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": ask("/ready", load_seconds // PERIOD_SECONDS),
        "readinessProbe": ask("/ready", 3),
        "livenessProbe": ask("/health", 6),
    }
