"""The volumes of a stage's pod, ours and the run's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.spec import PodTemplate
from falcon_operator.stages.manifest import Manifest
from falcon_operator.stages.naming import workspace_claim_name
from falcon_trainer.config import Publication, SecretKey
from falcon_trainer.layout import (
    CONFIG,
    PUBLISH_SECRETS,
    PUBLISHED,
    SOURCES,
    TOKEN,
    WORKSPACE,
    claim_folder,
    config_map_folder,
    published_claim_folder,
)
from falcon_trainer.uris import claim_and_path, config_map_and_key

PREFIX = "falcon-"
"""Names of our volumes begin so; a run's own must not."""
CONFIG_VOLUME = f"{PREFIX}config"
SCRATCH = "/tmp"
SHARED_MEMORY = "/dev/shm"
TAKEN = tuple(map(str, (WORKSPACE, SOURCES, CONFIG.parent, TOKEN.parent, PUBLISHED, PUBLISH_SECRETS)))
"""Paths that a run's own volumes must leave alone; SCRATCH and SHARED_MEMORY may be replaced."""
SECRET_MODE = 0o440
"""Readable for the pod's group (fsGroup), for nobody else."""


@dataclass
class Mounts:
    """Volumes of a pod and where its container sees them."""

    volumes: list[Manifest] = field(default_factory=list)
    mounts: list[Manifest] = field(default_factory=list)

    def add(self, name: str, source: Manifest, path: str, *, read_only: bool = False, sub_path: str = "") -> None:
        """One volume with one mount."""
        self.volumes.append({"name": name} | source)
        self.mount(name, path, read_only=read_only, sub_path=sub_path)

    def mount(self, name: str, path: str, *, read_only: bool = False, sub_path: str = "") -> None:
        """One more mount of a volume that is there already."""
        entry: Manifest = {"name": name, "mountPath": path}
        self.mounts.append(
            entry | ({"readOnly": True} if read_only else {}) | ({"subPath": sub_path} if sub_path else {})
        )


def claims_of(uris: Iterable[str]) -> list[str]:
    """The claims that pvc:// sources name, each once, in order of their names."""
    return sorted({claim_and_path(uri)[0] for uri in uris if uri.startswith("pvc://")})


def config_maps_of(uris: Iterable[str]) -> list[str]:
    """The ConfigMaps that configmap:// sources name, each once, in order of their names."""
    return sorted({config_map_and_key(uri)[0] for uri in uris if uri.startswith("configmap://")})


def add_workspace(found: Mounts, run: FalconFineTune, *, read_only: bool) -> None:
    """The run's workspace."""
    claim = {"persistentVolumeClaim": {"claimName": workspace_claim_name(run)}}
    found.add(f"{PREFIX}workspace", claim, str(WORKSPACE), read_only=read_only)


def add_sources(found: Mounts, run: FalconFineTune, uris: Sequence[str]) -> None:
    """Each claim and ConfigMap that a source names, read-only."""
    _add_claims(found, run, claims_of(uris))
    for index, name in enumerate(config_maps_of(uris)):
        # As a whole: a key that is missing is told by the stage, with those there are, and not by a pod that hangs.
        source = {"configMap": {"name": name}}
        found.add(f"{PREFIX}source-map-{index}", source, str(config_map_folder(name)), read_only=True)


def _add_claims(found: Mounts, run: FalconFineTune, claims: Iterable[str]) -> None:
    """The workspace's own claim is mounted a second time from the same volume: kubelets have been seen to wait for
    ever for the second of two volumes of one claim (kubernetes #82526).
    """
    for index, claim in enumerate(claims):
        path = str(claim_folder(claim))
        if claim == workspace_claim_name(run):
            found.mount(f"{PREFIX}workspace", path, read_only=True)
        else:
            source = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            found.add(f"{PREFIX}source-{index}", source, path, read_only=True)


def add_config(found: Mounts, config_map: str) -> None:
    """What the stage is told."""
    found.add(CONFIG_VOLUME, {"configMap": {"name": config_map}}, str(CONFIG.parent), read_only=True)


def add_token(found: Mounts, token: SecretKey) -> None:
    """The Hub token as a file."""
    items = [{"key": token.key, "path": TOKEN.name}]
    secret = {"secret": {"secretName": token.name, "items": items, "defaultMode": SECRET_MODE}}
    found.add(f"{PREFIX}token", secret, str(TOKEN.parent), read_only=True)


def add_publications(found: Mounts, publications: Sequence[Publication]) -> None:
    """The claims that results are copied to, and the credentials of each copy in a folder of its own."""
    for index, claim in enumerate(claims_of(publication.uri for publication in publications)):
        source = {"persistentVolumeClaim": {"claimName": claim}}
        found.add(f"{PREFIX}published-{index}", source, str(published_claim_folder(claim)))
    for index, publication in enumerate(publications):
        if publication.secret_name:
            secret = {"secret": {"secretName": publication.secret_name, "defaultMode": SECRET_MODE}}
            found.add(f"{PREFIX}publish-secret-{index}", secret, str(PUBLISH_SECRETS / str(index)), read_only=True)


def add_own(found: Mounts, template: PodTemplate) -> None:
    """The run's own volumes."""
    for volume in template.volumes or []:
        found.add(
            volume.name,
            volume.source,
            volume.mount_path,
            read_only=bool(volume.read_only),
            sub_path=volume.sub_path or "",
        )


def add_scratch(found: Mounts, *, shared_memory: bool) -> None:
    """Writable folders of a pod whose root file system is read-only, unless the run brought its own."""
    own = {entry["mountPath"].rstrip("/") for entry in found.mounts}
    if SCRATCH not in own:
        found.add(f"{PREFIX}tmp", {"emptyDir": {}}, SCRATCH)
    if shared_memory and SHARED_MEMORY not in own:
        # The container runtime's own /dev/shm holds 64 MiB, too little for NCCL and for data loaders.
        found.add(f"{PREFIX}shm", {"emptyDir": {"medium": "Memory"}}, SHARED_MEMORY)
