"""An image of buildah's storage as a stream that containerd imports, without the layers that the receiver has.

Nothing is written in between, and layers stay uncompressed: both sides know a layer by the same digest, so a change of
our own code moves kilobytes and not the gigabytes of dependencies below it. (`buildah push` would read, and for an OCI
layout compress, every layer every time: 80 s for the trainer.)
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Collection
from typing import IO, Any

from tests.cluster.images.buildah import storage, storage_options
from tests.cluster.shell import ClusterError, Word, run


class StoredImage:
    """One image in buildah's storage."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.manifest = self._data("manifest")
        parsed = json.loads(self.manifest)
        self.configuration: dict[str, Any] = parsed["config"]
        self.layers: list[dict[str, Any]] = parsed["layers"]

    def write(self, stream: IO[bytes], present: Collection[str]) -> None:
        """Write it as the tar of an OCI layout; layers whose digests are `present` at the receiver are left out."""
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [self._index_entry()]}).encode())
            _add(archive, _path(self.digest), self.manifest)
            _add(archive, _path(self.configuration["digest"]), self._data(self.configuration["digest"]))
            for layer in self.layers:
                if layer["digest"] not in present:
                    self._add_layer(archive, layer)

    @property
    def digest(self) -> str:
        stored = json.loads(_storage("image", "--json", self.reference))[0]
        return str(stored["big-data-digests"]["manifest"])

    def _index_entry(self) -> dict[str, Any]:
        return {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.digest,
            "size": len(self.manifest),
            # containerd names the imported image after this.
            "annotations": {"io.containerd.image.name": self.reference},
        }

    def _data(self, key: str) -> bytes:
        return _storage("get-image-data", self.reference, key).encode()

    def _add_layer(self, archive: tarfile.TarFile, layer: dict[str, Any]) -> None:
        member = tarfile.TarInfo(_path(layer["digest"]))
        member.size = layer["size"]
        command = _command("diff", "--uncompressed", self._layer_ids()[layer["digest"]])
        with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE) as reading:
            assert reading.stdout is not None
            archive.addfile(member, reading.stdout)
        if reading.returncode != 0:
            raise ClusterError(f"cannot read layer {layer['digest']} of {self.reference} from {storage()}")

    def _layer_ids(self) -> dict[str, str]:
        """Digest → id of the layer in the storage."""
        layers = json.loads(_storage("layers", "--json"))
        return {layer["diff-digest"]: layer["id"] for layer in layers if "diff-digest" in layer}


def _command(action: str, *words: str) -> list[Word]:
    return ["containers-storage", action, *storage_options("--graph", "--run"), *words]


def _storage(action: str, *words: str) -> str:
    return run(_command(action, *words))


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
