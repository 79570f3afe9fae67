"""Where things lie: paths inside a stage pod, and names on the workspace volume.

`models/` is shared between runs, `runs/NAME/` belongs to one. Artefacts are written beside their final name and renamed
into place, so whatever has its final name is whole.
"""

import os
from dataclasses import dataclass
from pathlib import Path

WORKSPACE = Path(os.environ.get("FALCON_WORKSPACE", "/workspace"))
SOURCES = Path(os.environ.get("FALCON_SOURCES", "/sources"))
"""Claims named in pvc:// sources are mounted read-only at SOURCES/CLAIM."""
CONFIG = Path(os.environ.get("FALCON_CONFIG", "/etc/falcon/run.json"))
TOKEN = Path(os.environ.get("FALCON_TOKEN", "/etc/falcon-token/token"))
"""The Hub token, in the prepare pod only."""
RUNTIME = Path(os.environ.get("FALCON_RUNTIME", "/tmp/falcon"))
"""Beats and outcomes of the ranks, read by the launcher."""
TERMINATION_LOG = Path(os.environ.get("FALCON_TERMINATION_LOG", "/dev/termination-log"))

PROGRESS_PORT = 8080
SERVE_PORT = 8000
RENDEZVOUS_PORT = 29500
MANIFEST = "manifest.json"


def claim_and_path(uri: str) -> tuple[str, str]:
    """Claim and path of a `pvc://CLAIM/PATH` source.

    Raises ValueError where the claim is missing or the path leaves it.
    """
    scheme, _, rest = uri.partition("://")
    claim, _, path = rest.partition("/")
    if scheme != "pvc" or not claim or path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{uri!r} is not pvc://CLAIM/PATH")
    return claim, path


def source_path(uri: str) -> Path:
    """Where a `pvc://` source is mounted."""
    claim, path = claim_and_path(uri)
    return SOURCES / claim / path


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
    def report(self) -> Path:
        return self.root / "report"

    def relative(self, path: Path) -> str:
        """`path` as it stands in an Artifact."""
        return str(path.relative_to(self.workspace))


def hub_model(workspace: Path, name: str, revision: str) -> Path:
    """Where a model of the Hub lies: shared by all runs of the workspace, read-only once its manifest stands."""
    return workspace / "models" / f"{name.replace('/', '--')}@{revision}"
