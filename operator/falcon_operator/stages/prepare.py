"""The prepare stage: checks and packs the records, fetches the base model. Needs no GPU."""

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.config import config_map, run_config
from falcon_operator.stages.jobs import single_pod_job
from falcon_operator.stages.manifest import Manifest
from falcon_operator.stages.pod import PodPlan, pod_template
from falcon_operator.stages.settings import StageSettings

GRACE_SECONDS = 30


def prepare_config(run: FalconFineTune) -> Manifest:
    """The ConfigMap of the stage."""
    return config_map(run, "prepare", run_config(run, "prepare"))


def source_uris(run: FalconFineTune) -> tuple[str, ...]:
    """All that the stage reads from: base model, records, and the adapter to start from."""
    adapter = run.spec.lora.initial_adapter
    return (
        run.spec.model.source,
        *(source.uri for source in run.spec.dataset.sources),
        *([adapter] if adapter else []),
    )


def prepare_job(run: FalconFineTune, settings: StageSettings) -> Manifest:
    """The Job `NAME-prepare`; the only pod that gets the Hub token."""
    plan = PodPlan(
        stage="prepare",
        config_map=prepare_config(run)["metadata"]["name"],
        grace_seconds=GRACE_SECONDS,
        source_uris=source_uris(run),
        token=run.spec.model.token_secret_ref,
    )
    return single_pod_job(run, "prepare", pod_template(run, settings, plan))
