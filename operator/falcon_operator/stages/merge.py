"""The merge stage: verifies the adapter and merges it into the base, streaming. Needs no GPU."""

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.config import config_map, run_config
from falcon_operator.stages.jobs import single_pod_job
from falcon_operator.stages.manifest import Manifest
from falcon_operator.stages.nearby import at_the_volume
from falcon_operator.stages.pod import PodPlan, pod_template
from falcon_operator.stages.settings import StageSettings
from falcon_trainer.config import Artifact

GRACE_SECONDS = 30


def merge_config(run: FalconFineTune, adapter: Artifact, kept: Artifact | None = None) -> Manifest:
    """The ConfigMap of the stage; `adapter` is the accepted one, `kept` the merged model before, which is served until
    the new one answers: the stage removes all but this one. None leaves all of them alone.
    """
    return config_map(run, "merge", run_config(run, "merge", adapter=adapter, merged=kept))


def merge_job(
    run: FalconFineTune, settings: StageSettings, adapter: Artifact, kept: Artifact | None = None
) -> Manifest:
    """The Job `NAME-merge`."""
    near = at_the_volume(run, "merge")
    plan = PodPlan(
        stage="merge",
        config_map=merge_config(run, adapter, kept)["metadata"]["name"],
        grace_seconds=GRACE_SECONDS,
        source_uris=(run.spec.model.source,),
        tolerations=near.tolerations,
        extra=near.extra,
    )
    return single_pod_job(run, "merge", pod_template(run, settings, plan))
