"""Where things lie: the cache outside the checkout, and the run folder of this checkout."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = Path(__file__).resolve().parent
TEMPLATES = PACKAGE / "templates"
RUN = REPOSITORY / ".run"
KUBECONFIG = RUN / "kubeconfig"
IMAGES_ENV = RUN / "images.env"


def cache() -> Path:
    """Folder of everything costly that outlives a checkout: binaries, image layers, the local cluster's state."""
    if configured := os.environ.get("FALCON_CACHE"):
        return Path(configured).resolve()
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home).resolve() / "falcon-finetune"
