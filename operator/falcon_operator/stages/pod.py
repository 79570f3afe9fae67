"""The pod of a stage: hardened as the restricted Pod Security Standard asks, run by the launcher unless its plan names
another program.

Precedence: what a stage cannot do without (security, our labels, our mounts, FALCON_* variables) goes before the run's
template, and the template goes before our defaults.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from falcon_operator.api.kubernetes_types import wire_or_empty
from falcon_operator.api.names import StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.spec import IdentityPodTemplate
from falcon_operator.stages import volumes
from falcon_operator.stages.manifest import Manifest, labels
from falcon_operator.stages.settings import StageSettings
from falcon_operator.stages.template import merged_template
from falcon_trainer.config import Publication, SecretKey
from falcon_trainer.layout import PROGRESS_PORT

USER = 65532
"""The `nonroot` user of the images."""
CONTAINER = "stage"
"""Name of the one container, the same in every stage: `kubectl logs -c stage`."""
GPU = "nvidia.com/gpu"
GPU_TOLERATION: Manifest = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}
"""GPU nodes carry this taint to keep pods without a GPU off; a pod that asks for one belongs there."""
POD_FIELDS = {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "FALCON_NODE": "spec.nodeName"}
"""Variables that tell a stage where it runs."""
LAUNCHER_SECONDS = 5
"""Of the grace period, what the launcher keeps to write the outcome after the stage has ended."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What runs in the place of our launcher, in an image that knows nothing of it."""

    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables that the run's template may replace."""


@dataclass(frozen=True, kw_only=True)
class PodPlan:
    """What one stage wants of its pod."""

    stage: StageName
    config_map: str
    grace_seconds: int
    """Seconds from SIGTERM to SIGKILL."""
    restart_policy: Literal["Never", "Always"] = "Never"
    attempt: int | None = None
    gpus: int = 0
    source_uris: tuple[str, ...] = ()
    token: SecretKey | None = None
    read_only_workspace: bool = False
    shared_memory: bool = False
    publications: tuple[Publication, ...] = ()
    """Copies whose targets and credentials are mounted."""
    program: Program | None = None
    """By default the launcher of the trainer image, with the stage's name."""
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, SecretKey] = field(default_factory=dict)
    """Variables whose values the kubelet takes from Secrets."""
    ports: Mapping[str, int] = field(default_factory=dict)
    probes: Manifest | None = None
    """Probes and lifecycle of the container; by default the launcher's own liveness."""
    tolerations: tuple[Manifest, ...] = ()
    extra: Manifest = field(default_factory=dict)
    """Further fields of the pod's spec."""


def pod_template(run: FalconFineTune, settings: StageSettings, plan: PodPlan) -> Manifest:
    """The PodTemplateSpec of a stage."""
    template = merged_template(run.spec.pod_template, plan.stage)
    mounts = _mounts(run, plan, template)
    metadata: Manifest = {"labels": (template.labels or {}) | labels(run, plan.stage, plan.attempt)}
    if template.annotations:
        metadata["annotations"] = dict(template.annotations)
    spec: Manifest = {
        "restartPolicy": plan.restart_policy,
        "automountServiceAccountToken": False,
        # Service variables of the namespace could look like settings (a Service `falcon-config` sets FALCON_CONFIG_…).
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": plan.grace_seconds,
        "securityContext": _pod_security(),
        "containers": [_container(plan, settings, template, mounts)],
        "volumes": mounts.volumes,
    }
    return {"metadata": metadata, "spec": spec | _placement(plan, template) | plan.extra}


def replaces_spreading(run: FalconFineTune, stage: StageName) -> bool:
    """Whether the run says itself how its pods lie to each other."""
    affinity = merged_template(run.spec.pod_template, stage).affinity
    if affinity is None:
        return False
    return affinity.pod_affinity is not None or affinity.pod_anti_affinity is not None


def _mounts(run: FalconFineTune, plan: PodPlan, template: IdentityPodTemplate) -> volumes.Mounts:
    found = volumes.Mounts()
    volumes.add_workspace(found, run, read_only=plan.read_only_workspace)
    volumes.add_sources(found, run, plan.source_uris)
    volumes.add_config(found, plan.config_map)
    if plan.token:
        volumes.add_token(found, plan.token)
    volumes.add_publications(found, plan.publications)
    volumes.add_own(found, template)
    volumes.add_scratch(found, shared_memory=plan.shared_memory)
    return found


def _pod_security() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        # A workspace holds millions of bytes and thousands of files; changing them all at every start takes minutes.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container(
    plan: PodPlan, settings: StageSettings, template: IdentityPodTemplate, mounts: volumes.Mounts
) -> Manifest:
    ports = ({} if plan.program else {"progress": PROGRESS_PORT}) | dict(plan.ports)
    container: Manifest = {
        "name": CONTAINER,
        "imagePullPolicy": settings.image_pull_policy,
        **_program(plan, settings, template),
        "env": _env(plan, template),
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "volumeMounts": mounts.mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    resources = _resources(plan, template)
    return container | (plan.probes or launcher_probe()) | ({"resources": resources} if resources else {})


def _program(plan: PodPlan, settings: StageSettings, template: IdentityPodTemplate) -> Manifest:
    if plan.program is None:
        return {"image": template.image or settings.image, "args": [plan.stage]}
    return {
        "image": plan.program.image,
        "command": list(plan.program.command),
        "args": list(plan.program.args),
    }


def launcher_probe() -> Manifest:
    """Liveness of the launcher itself: a stage that is busy for hours is alive, a launcher that is silent is not."""
    return {
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "progress"},
            "initialDelaySeconds": 10,
            "periodSeconds": 15,
            "timeoutSeconds": 5,
            "failureThreshold": 8,
        }
    }


def _env(plan: PodPlan, template: IdentityPodTemplate) -> list[Manifest]:
    """The run's variables and ours; in our image folders for caches are the image's, defaults of the stages the
    launcher's.
    """
    defaults = plan.program.env if plan.program else {}
    found: dict[str, Manifest] = {name: {"name": name, "value": value} for name, value in defaults.items()}
    found |= {variable.name: variable.to_wire() for variable in template.env or []}
    told = dict(plan.env)
    if plan.program is None:
        for name, path in POD_FIELDS.items():
            found[name] = {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        told = {"FALCON_GRACE_SECONDS": str(plan.grace_seconds - LAUNCHER_SECONDS)} | told
    found |= {name: {"name": name, "value": value} for name, value in told.items()}
    found |= {name: _from_secret(name, secret) for name, secret in plan.secret_env.items()}
    return list(found.values())


def _from_secret(name: str, secret: SecretKey) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}


def _resources(plan: PodPlan, template: IdentityPodTemplate) -> Manifest:
    found = wire_or_empty(template.resources)
    if plan.gpus:
        # An extended resource is asked for in its limit; the request follows.
        found["limits"] = found.get("limits", {}) | {GPU: plan.gpus}
    return found


def _placement(plan: PodPlan, template: IdentityPodTemplate) -> Manifest:
    wired = template.to_wire()
    copied = (
        "nodeSelector",
        "affinity",
        "imagePullSecrets",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "serviceAccountName",
    )
    found = {name: wired[name] for name in copied if name in wired}
    tolerations = _tolerations(plan, wired.get("tolerations", []))
    return found | ({"tolerations": tolerations} if tolerations else {})


def _tolerations(plan: PodPlan, own: list[Manifest]) -> list[Manifest]:
    """The run's, then ours for keys of which the run says nothing."""
    keys = {toleration.get("key") for toleration in own}
    ours = [*plan.tolerations, *([GPU_TOLERATION] if plan.gpus else [])]
    return own + [toleration for toleration in ours if toleration["key"] not in keys]
