"""The base image of machines without a container registry: Debian's packages alone.

Elsewhere the same Dockerfiles are built on `python:3.12-slim`.
"""

import hashlib
import tempfile
from pathlib import Path

from tests.cluster.images.buildah import buildah, exists
from tests.cluster.shell import run, step

_SUITE = "bookworm"
_PACKAGES = "ca-certificates,python3,python3-venv"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_TRUST = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")


def local_base() -> str:
    """Name of the local base image; made when the storage has none (about 30 s)."""
    trusted = _CERTIFICATES.read_bytes() if _CERTIFICATES.exists() else b""
    recipe = hashlib.sha256("\0".join([_SUITE, _PACKAGES, *_TRUST]).encode() + trusted).hexdigest()
    image = f"localhost/falcon-base:{recipe[:12]}"
    if not exists(image):
        with step(f"making the base image {image} from Debian packages (once)"):
            _make(image)
    return image


def _make(image: str) -> None:
    with tempfile.TemporaryDirectory(prefix="falcon-base-") as scratch:
        root = Path(scratch) / "root.tar"
        run(["mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", "--quiet", _SUITE, root])
        container = buildah("from", "scratch").strip()
        try:
            buildah("add", "--quiet", container, root, "/")
            # What this machine trusts: behind a proxy of its own, pip and uv would refuse the registry's certificate.
            if _CERTIFICATES.exists():
                buildah("copy", "--quiet", container, _CERTIFICATES, _CERTIFICATES)
                for variable in _TRUST:
                    buildah("config", "--env", f"{variable}={_CERTIFICATES}", container)
            buildah("commit", "--quiet", container, image)
        finally:
            buildah("rm", container)
