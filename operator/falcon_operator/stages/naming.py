"""Names of a run's children: deterministic, so that a restarted operator finds what it made."""

from falcon_operator.api.names import StageName
from falcon_operator.api.resource import FalconFineTune

TRAIN_INFIX = "-train-"


def stage_name(run: FalconFineTune, stage: StageName) -> str:
    """The Job of a stage of one pod; the Service of train and serve; the Deployment of serve."""
    return f"{run.name}-{stage}"


def train_job_name(run: FalconFineTune, attempt: int) -> str:
    """The Job of one attempt of the gang."""
    return f"{run.name}{TRAIN_INFIX}{attempt}"


def attempt_of(run: FalconFineTune, job_name: str) -> int | None:
    """The attempt whose Job has this name, or None where it is no train Job of the run."""
    prefix = f"{run.name}{TRAIN_INFIX}"
    number = job_name.removeprefix(prefix)
    return int(number) if job_name.startswith(prefix) and number.isdecimal() else None


def workspace_claim_name(run: FalconFineTune) -> str:
    """The claim of the workspace: the user's, or the one that the operator creates."""
    return run.spec.workspace.claim_name or f"{run.name}-workspace"


def rendezvous_host(run: FalconFineTune, attempt: int) -> str:
    """Address of rank 0: the Job controller names the pod of index I `JOB-I`; the headless Service is its subdomain."""
    return f"{train_job_name(run, attempt)}-0.{stage_name(run, 'train')}.{run.namespace}.svc"


def endpoint(run: FalconFineTune) -> str:
    """Base URL of the OpenAI-compatible API inside the cluster (port 80 of the Service)."""
    return f"http://{stage_name(run, 'serve')}.{run.namespace}.svc/v1"
