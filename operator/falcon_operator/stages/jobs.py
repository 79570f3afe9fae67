"""Jobs of one pod: prepare, merge, publish and evaluate."""

from falcon_operator.api.names import StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.manifest import Manifest, child
from falcon_operator.stages.naming import stage_name
from falcon_operator.stages.volumes import CONFIG_VOLUME
from falcon_trainer.outcome import RETRYABLE, ExitCode

RETRIES = 10
"""Enough to outlast an outage of the Hub. The Job controller waits 10 s before the first one and twice as long before
each further one, up to 10 minutes (Kubernetes' source; its documentation says 6): 10 + 20 + ... + 320 + 4 * 600 s, some
50 minutes in all, or 35 with 6.
"""
FINAL_CODES = sorted(int(code) for code in ExitCode if code is not ExitCode.OK and code not in RETRYABLE)
"""Exit codes that would be the same if the stage ran again unchanged."""


def told_by(workload: Manifest) -> str | None:
    """Name of the ConfigMap that the pods of a Job are told by; None of a Job that is not as we make them."""
    volumes = workload["spec"]["template"]["spec"].get("volumes") or []
    maps = (volume["configMap"]["name"] for volume in volumes if volume["name"] == CONFIG_VOLUME)
    return next(maps, None)


def single_pod_job(run: FalconFineTune, stage: StageName, template: Manifest) -> Manifest:
    """The Job `NAME-STAGE`: disruptions cost nothing, faults are tried again, and a final exit code ends it at once."""
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": FINAL_CODES}},
    ]
    spec = {
        "backoffLimit": RETRIES,
        "podReplacementPolicy": "Failed",  # never two pods that write into one workspace
        "podFailurePolicy": {"rules": rules},
        "template": template,
    }
    return child(run, ("batch/v1", "Job"), stage_name(run, stage), {"spec": spec}, stage=stage)
