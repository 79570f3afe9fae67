"""An image as buildah's storage keeps it: two documents, and one folder of files for each layer."""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from tests.cluster.images.buildah import storage, storage_options
from tests.cluster.shell import Word, run


@dataclass(frozen=True)
class Layer:
    digest: str
    """of the uncompressed tar, by which both buildah and containerd know the layer"""
    size: int
    """bytes of that tar"""
    chain: str
    """digest that names the layer together with all below it (OCI image specification, ChainID)"""


def chain_ids(digests: Sequence[str]) -> list[str]:
    """ChainID(L0) = L0; ChainID(L0|…|Ln) = sha256(ChainID(L0|…|Ln-1) + " " + Ln), each as "sha256:HEX"."""
    chains: list[str] = []
    for digest in digests:
        chains.append(f"sha256:{sha256(f'{chains[-1]} {digest}'.encode()).hexdigest()}" if chains else digest)
    return chains


@dataclass(frozen=True)
class StoredImage:
    """One image in buildah's storage."""

    reference: str

    @cached_property
    def manifest(self) -> bytes:
        return self._document("manifest")

    @property
    def digest(self) -> str:
        return f"sha256:{sha256(self.manifest).hexdigest()}"

    @cached_property
    def layers(self) -> list[Layer]:
        """From the bottom to the top."""
        entries = self._parsed["layers"]
        chains = chain_ids([entry["digest"] for entry in entries])
        return [Layer(entry["digest"], entry["size"], chain) for entry, chain in zip(entries, chains, strict=True)]

    def folder(self, layer: Layer) -> Path:
        """The files of a layer, with whiteouts as overlayfs has them."""
        return storage() / "overlay" / self._ids[layer.digest] / "diff"

    def write_documents(self, stream: IO[bytes]) -> None:
        """Write the image without its layers, as the tar of an OCI layout that names it by its reference."""
        entry = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.digest,
            "size": len(self.manifest),
            "annotations": {"io.containerd.image.name": self.reference},
        }
        configuration = self._parsed["config"]["digest"]
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
            _add(archive, f"blobs/{self.digest.replace(':', '/')}", self.manifest)
            _add(archive, f"blobs/{configuration.replace(':', '/')}", self._document(configuration))

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.manifest)
        return parsed

    @cached_property
    def _ids(self) -> dict[str, str]:
        """Digest of a layer → its id in the storage."""
        layers = json.loads(_containers_storage("layers", "--json"))
        return {layer["diff-digest"]: layer["id"] for layer in layers if "diff-digest" in layer}

    def _document(self, key: str) -> bytes:
        return _containers_storage("get-image-data", self.reference, key).encode()


def _containers_storage(action: str, *words: str) -> str:
    command: list[Word] = ["containers-storage", action, *storage_options("--graph", "--run"), *words]
    return run(command)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
