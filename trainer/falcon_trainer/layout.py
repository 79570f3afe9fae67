"""Where things lie: paths inside a stage pod, and names on the workspace volume.

`models/` is shared between runs, `runs/NAME/` belongs to one. Artefacts are written beside their final name and renamed
into place, so whatever has its final name is whole.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from falcon_trainer.uris import claim_and_path, config_map_and_key

WORKSPACE = Path(os.environ.get("FALCON_WORKSPACE", "/workspace"))
SOURCES = Path(os.environ.get("FALCON_SOURCES", "/sources"))
"""Claims and ConfigMaps that sources name are mounted read-only below it."""
CONFIG = Path(os.environ.get("FALCON_CONFIG", "/etc/falcon/run.json"))
TOKEN = Path(os.environ.get("FALCON_TOKEN", "/etc/falcon-token/token"))
"""The Hub token, in the prepare pod only."""
PUBLISH_SECRETS = Path(os.environ.get("FALCON_PUBLISH_SECRETS", "/etc/falcon-publish"))
"""A folder of files for each publication with credentials, named by its place in the list; in the publish pod only."""
PUBLISHED = Path(os.environ.get("FALCON_PUBLISHED", "/published"))
"""Claims that results are copied to are mounted below it, in the publish pod only."""
RUNTIME = Path(os.environ.get("FALCON_RUNTIME", "/tmp/falcon"))
"""Beats and outcomes of the ranks, read by the launcher."""
TERMINATION_LOG = Path(os.environ.get("FALCON_TERMINATION_LOG", "/dev/termination-log"))

PROGRESS_PORT = 8080
SERVE_PORT = 8000
RENDEZVOUS_PORT = 29500
MANIFEST = "manifest.json"


def claim_folder(claim: str) -> Path:
    """Where a claim is mounted."""
    return SOURCES / claim


def published_claim_folder(claim: str) -> Path:
    """Where a claim that results are copied to is mounted."""
    return PUBLISHED / claim


def config_map_folder(name: str) -> Path:
    """Where a ConfigMap is mounted; no claim's name begins with '_'."""
    return SOURCES / "_configmaps" / name


def source_path(uri: str) -> Path:
    """Where a `pvc://` or `configmap://` source lies."""
    if uri.startswith("configmap://"):
        name, key = config_map_and_key(uri)
        return config_map_folder(name) / key
    claim, path = claim_and_path(uri)
    return claim_folder(claim) / path


@dataclass(frozen=True)
class RunLayout:
    """The folders of one run on the workspace."""

    run: str
    workspace: Path = WORKSPACE

    @property
    def root(self) -> Path:
        return self.workspace / "runs" / self.run

    @property
    def identity(self) -> Path:
        """Says which run, model, data and LoRA settings own this folder; an equal one is resumed, another refused."""
        return self.root / "identity.json"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def validation(self) -> Path:
        """The rows held out of training, part of the same artefact; there where dataset.validation is."""
        return self.data / "validation"

    @property
    def initial_adapter(self) -> Path:
        """The adapter that training starts from; there where lora.initialAdapter is."""
        return self.root / "initial_adapter"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    def incarnation(self, attempt: int, pod_uid: str) -> Path:
        """The only folder that this incarnation of the gang writes checkpoints to (`pod_uid` is rank 0's)."""
        return self.attempts / f"{attempt}-{pod_uid}"

    def adapter(self, digest: str) -> Path:
        """The finished adapter of one incarnation; its digest (hex, no prefix) keeps two late writers apart."""
        return self.root / "adapter" / digest

    def merged(self, digest: str) -> Path:
        """A merged model; under its digest, so that a rollout never pulls files from under a running server."""
        return self.root / "merged" / digest

    @property
    def skipped(self) -> Path:
        """The global batches that are left out of the training because their loss was no number."""
        return self.root / "skipped.json"

    @property
    def report(self) -> Path:
        return self.root / "report"

    def relative(self, path: Path) -> str:
        """`path` as it stands in an Artifact."""
        return str(path.relative_to(self.workspace))


def hub_model(workspace: Path, name: str, revision: str) -> Path:
    """Where a model of the Hub lies: shared by all runs of the workspace, read-only once its manifest stands."""
    return workspace / "models" / f"{name.replace('/', '--')}@{revision}"
