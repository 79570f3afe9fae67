"""The publish stage: copies the results to other claims, buckets and the Hub. Needs no GPU."""

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.config import config_map, run_config
from falcon_operator.stages.jobs import single_pod_job
from falcon_operator.stages.manifest import Manifest
from falcon_operator.stages.nearby import at_the_volume
from falcon_operator.stages.pod import PodPlan, pod_template
from falcon_operator.stages.settings import StageSettings
from falcon_trainer.config import Artifact

GRACE_SECONDS = 30


def publish_config(run: FalconFineTune, adapter: Artifact, merged: Artifact | None) -> Manifest:
    """The ConfigMap of the stage; `merged` is None where only the adapter is published."""
    return config_map(run, "publish", run_config(run, "publish", adapter=adapter, merged=merged))


def publish_job(run: FalconFineTune, settings: StageSettings, adapter: Artifact, merged: Artifact | None) -> Manifest:
    """The Job `NAME-publish`; the only pod that gets credentials of the targets and writes to other claims."""
    near = at_the_volume(run, "publish")
    plan = PodPlan(
        stage="publish",
        config_map=publish_config(run, adapter, merged)["metadata"]["name"],
        grace_seconds=GRACE_SECONDS,
        read_only_workspace=True,
        publications=tuple(run.spec.publish or ()),
        tolerations=near.tolerations,
        extra=near.extra,
    )
    return single_pod_job(run, "publish", pod_template(run, settings, plan))
