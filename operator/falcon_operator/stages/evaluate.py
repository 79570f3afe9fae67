"""The evaluate stage: asks the server that was rolled out the stored prompts. Needs no GPU."""

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.config import config_map, run_config
from falcon_operator.stages.jobs import single_pod_job
from falcon_operator.stages.manifest import Manifest
from falcon_operator.stages.naming import endpoint
from falcon_operator.stages.nearby import at_the_volume
from falcon_operator.stages.pod import PodPlan, pod_template
from falcon_operator.stages.serve_transformers import api_key
from falcon_operator.stages.settings import StageSettings
from falcon_trainer.config import Artifact

GRACE_SECONDS = 30


def evaluate_config(run: FalconFineTune, merged: Artifact) -> Manifest:
    """The ConfigMap of the stage; `merged` is the model that answers."""
    return config_map(run, "evaluate", run_config(run, "evaluate", merged=merged, endpoint=endpoint(run)))


def evaluate_job(run: FalconFineTune, settings: StageSettings, merged: Artifact) -> Manifest:
    """The Job `NAME-evaluate`; it writes its answers into the report on the workspace."""
    near = at_the_volume(run, "evaluate")
    plan = PodPlan(
        stage="evaluate",
        config_map=evaluate_config(run, merged)["metadata"]["name"],
        grace_seconds=GRACE_SECONDS,
        secret_env=api_key(run),
        tolerations=near.tolerations,
        extra=near.extra,
    )
    return single_pod_job(run, "evaluate", pod_template(run, settings, plan))
