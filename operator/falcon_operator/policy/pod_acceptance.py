"""Whether a run's pod templates leave alone what the stages need for themselves."""

import re
from collections.abc import Callable, Iterator, Mapping

from falcon_operator.api.names import GROUP, STAGES, StageName
from falcon_operator.api.resource import FalconFineTune, Problem
from falcon_operator.api.spec import PodTemplate
from falcon_operator.stages import volumes
from falcon_operator.stages.manifest import labels
from falcon_operator.stages.naming import workspace_claim_name
from falcon_operator.stages.pod import GPU
from falcon_operator.stages.prepare import source_uris

RESERVED_ENV = frozenset(
    {
        *("POD_NAME", "POD_UID", "JOB_COMPLETION_INDEX"),
        *("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK"),
        *("WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    }
)
RESERVED_ENV_PREFIXES = ("FALCON_", "PET_")
"""PET_ is how torchrun takes its options from the environment."""
RESERVED_LABEL_PREFIXES = (f"{GROUP}/", "batch.kubernetes.io/")
RESERVED_LABELS = frozenset({"job-name", "controller-uid", "pod-template-hash"})
LABEL_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_PREFIX = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/"


def pod_template_problems(run: FalconFineTune) -> Iterator[Problem]:
    """The problems of every template of the run."""
    templates = run.spec.pod_template
    for name in ("all", *STAGES) if templates else ():
        template: PodTemplate | None = getattr(templates, name)
        if template is not None:
            for check in CHECKS:
                yield from check(run, template, f"spec.podTemplate.{name}")
    for stage in STAGES if templates else ():
        yield from _paths_twice(run, stage)


def _labels(run: FalconFineTune, template: PodTemplate, path: str) -> Iterator[Problem]:
    ours = labels(run, "train", 1)
    for key in template.labels or {}:
        if key in ours or key in RESERVED_LABELS or key.startswith(RESERVED_LABEL_PREFIXES):
            yield Problem(f"{path}.labels[{key}]", "is set by the operator: choose another label")
    yield from _syntax(template.labels or {}, f"{path}.labels")
    yield from _syntax(template.node_selector or {}, f"{path}.nodeSelector")
    yield from _keys(template.annotations or {}, f"{path}.annotations")


def _keys(entries: Mapping[str, str], path: str) -> Iterator[Problem]:
    for key in entries:
        if not re.fullmatch(f"({LABEL_PREFIX})?{LABEL_PART}", key):
            yield Problem(
                f"{path}[{key}]", "is no key: [PREFIX/]NAME, the name of at most 63 letters, digits, '-', '_', '.'"
            )


def _syntax(entries: Mapping[str, str], path: str) -> Iterator[Problem]:
    yield from _keys(entries, path)
    for key, value in entries.items():
        if value and not re.fullmatch(LABEL_PART, value):
            yield Problem(
                f"{path}[{key}]", f"{value!r} is no label value: at most 63 letters, digits, '-', '_' and '.'"
            )


def _env(_: FalconFineTune, template: PodTemplate, path: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, variable in enumerate(template.env or []):
        if variable.name in RESERVED_ENV or variable.name.startswith(RESERVED_ENV_PREFIXES):
            yield Problem(f"{path}.env[{index}].name", f"{variable.name} is set by the operator: leave it out")
        if variable.name in seen:
            yield Problem(f"{path}.env[{index}].name", f"{variable.name} is given twice: keep one")
        seen.add(variable.name)


def _resources(_: FalconFineTune, template: PodTemplate, path: str) -> Iterator[Problem]:
    if template.resources is None:
        return
    for part, entries in (("requests", template.resources.requests), ("limits", template.resources.limits)):
        if GPU in (entries or {}):
            yield Problem(
                f"{path}.resources.{part}[{GPU}]", "GPUs are asked for in gang.gpusPerNode and serve.gpus: leave it out"
            )


def _volumes(run: FalconFineTune, template: PodTemplate, path: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, volume in enumerate(template.volumes or []):
        place = f"{path}.volumes[{index}]"
        if volume.name.startswith(volumes.PREFIX):
            yield Problem(f"{place}.name", f"names that begin with {volumes.PREFIX!r} belong to the operator")
        if volume.name in seen:
            yield Problem(f"{place}.name", f"{volume.name} is given twice: keep one")
        seen.add(volume.name)
        if sentence := _path_problem(volume.mount_path):
            yield Problem(f"{place}.mountPath", sentence)
        claim = volume.source.get("persistentVolumeClaim")
        name = claim.get("claimName") if isinstance(claim, Mapping) else None
        if name in _mounted_claims(run):
            # Two volumes of one claim hang a pod for ever (kubernetes #82526).
            yield Problem(
                f"{place}.source",
                f"the claim {name!r} is mounted by the run already, under /workspace, /sources/{name} or "
                f"/published/{name}",
            )


def _mounted_claims(run: FalconFineTune) -> list[str]:
    # Also of a URI that is refused elsewhere, so not parsed as `claims_of` does it.
    uris = [*source_uris(run), *(publication.uri for publication in run.spec.publish or [])]
    named = [uri.removeprefix("pvc://").partition("/")[0] for uri in uris if uri.startswith("pvc://")]
    return [workspace_claim_name(run), *named]


def _path_problem(mount_path: str) -> str | None:
    parts = mount_path.rstrip("/").split("/")
    if ".." in parts or "." in parts or ":" in mount_path:
        return "must be a plain absolute path, without '.', '..' and ':'"
    for taken in volumes.TAKEN:
        inner = taken.split("/")
        if parts[: len(inner)] == inner or inner[: len(parts)] == parts:
            return f"would hide or lie inside {taken}, which the stage needs: choose another path"
    return None


def _paths_twice(run: FalconFineTune, stage: StageName) -> Iterator[Problem]:
    """Two volumes at one path: templates are laid over each other by the volumes' names, not by their paths."""
    templates = run.spec.pod_template
    named: dict[str, str] = {}
    for template in (templates.all, getattr(templates, stage)) if templates else ():
        named |= {volume.name: volume.mount_path.rstrip("/") for volume in (template.volumes or [] if template else [])}
    twice = sorted({path for path in named.values() if list(named.values()).count(path) > 1})
    for path in twice:
        yield Problem(f"spec.podTemplate.{stage}.volumes", f"two volumes are mounted at {path}: give each its own path")


Check = Callable[[FalconFineTune, PodTemplate, str], Iterator[Problem]]
CHECKS: tuple[Check, ...] = (_labels, _env, _resources, _volumes)
