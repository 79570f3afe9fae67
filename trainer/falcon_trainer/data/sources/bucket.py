"""s3:// sources: one object, or all objects of a folder, through fsspec over Arrow's own S3 client.

Credentials, region and endpoint come from the environment, as for any S3 client: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3), or the identity of the
pod's service account.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import JsonValue

from falcon_trainer.data.sources.choosing import Chosen, Wanted, chosen_of_folder, single
from falcon_trainer.data.sources.fetching import PartialFile, UnavailableError, patiently, reported, room
from falcon_trainer.data.sources.place import FILES, NOTES, Remote, require_space
from falcon_trainer.data.sources.splits import CARD
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.uris import bucket_and_path

BLOCK = 1 << 24
"""Bytes of one request: each waits once for the store."""
AWS_ERROR = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))?")
"""How Arrow's client names what the store answered; seen with pyarrow 26. It loses what is said to a GET ("Failed to
flush response stream"), but the next try asks by HEAD first."""
FORBIDDEN = frozenset(
    {
        "ACCESS_DENIED",
        "INVALID_ACCESS_KEY_ID",
        "INVALID_CLIENT_TOKEN_ID",
        "MISSING_AUTHENTICATION_TOKEN",
        "SIGNATURE_DOES_NOT_MATCH",
        "UNRECOGNIZED_CLIENT",
    }
)
NOT_THERE = frozenset({"NO_SUCH_BUCKET", "NO_SUCH_KEY", "RESOURCE_NOT_FOUND"})
T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """What lies at a path: sizes in bytes by the names below it; of an object itself, by its own name."""

    sizes: dict[str, int]
    single: bool


class Bucket(Remote):
    """Objects of an S3 bucket."""

    def __init__(self, wanted: Wanted, downloads: Path) -> None:
        super().__init__(wanted, downloads)
        bucket, path = bucket_and_path(wanted.uri)
        self._root = f"{bucket}/{path}".rstrip("/")

    def download(self, folder: Path) -> tuple[Chosen, dict[str, JsonValue]]:
        """As Remote.download."""
        store = self._ask(filesystem)
        listing = self._ask(lambda: _listing(store, self._root))
        chosen = self._choose(store, listing)
        files = {name: PartialFile(folder / FILES / name, folder / NOTES / name) for name in chosen.files}
        require_space(folder, [listing.sizes[name] - file.size for name, file in files.items()], self.wanted)
        with room(self.wanted):
            for name, file in files.items():
                key = self._root if chosen.single else f"{self._root}/{name}"
                self._ask(partial(self._fetch_object, store, key, file), file)
        return chosen, {"uri": self.wanted.uri}

    def _choose(self, store: Any, listing: Listing) -> Chosen:
        if listing.single:
            return single(next(iter(listing.sizes)), self.wanted)
        if not listing.sizes:
            raise self.wanted.missing("there is no such object, and no key begins with it and a '/'")
        card = self._ask(lambda: store.cat_file(f"{self._root}/{CARD}")) if CARD in listing.sizes else b""
        return chosen_of_folder(listing.sizes, card.decode(errors="replace"), self.wanted)

    def _ask(self, question: Callable[[], T], file: PartialFile | None = None) -> T:
        """Asks the store, patiently, and turns its errors into StageErrors."""

        def asked() -> T:
            try:
                return question()
            except OSError as error:
                if error.errno is not None and not isinstance(error, FileNotFoundError):
                    raise
                raise self._meaning(error) from error

        return patiently(asked, lambda: file.size if file else 0, self.wanted)

    def _fetch_object(self, store: Any, key: str, file: PartialFile) -> None:
        with store.open(key, "rb") as remote:
            version, total = _version(remote), remote.size
            if file.version != version or file.size > total:
                file.begin(version)
            remote.seek(file.size)
            blocks = iter(lambda: remote.read(BLOCK), b"")
            file.append(reported(blocks, file.size, total, self.wanted))
        with store.open(key, "rb") as remote:
            if _version(remote) != version:
                file.begin(None)
                raise UnavailableError("has changed while it was fetched")

    def _meaning(self, error: OSError) -> Exception:
        match = AWS_ERROR.search(str(error))
        name, status = (match.group(1), match.group(2) or "") if match else ("", "")
        said = f"the store answers {name}{f' (HTTP {status})' if status else ''}" if match else str(error)
        if isinstance(error, FileNotFoundError) or name in NOT_THERE or status == "404":
            return self.wanted.missing("there is no such bucket, or it holds no such object")
        if name in FORBIDDEN or status in ("401", "403"):
            return StageError(
                ExitCode.NO_PERMISSION,
                "DataForbidden",
                f"{self.wanted.shown}: {said}. Give the prepare pod credentials that may list and read it: AWS_* "
                "variables in podTemplate.prepare.env, or a service account in podTemplate.prepare.serviceAccountName.",
            )
        if status in ("301", "400") or name == "VALIDATION":
            return self.wanted.missing(
                f"{said}: check AWS_REGION and AWS_ENDPOINT_URL in podTemplate.prepare.env, and that the credentials "
                "have not expired"
            )
        return UnavailableError(f"cannot be read ({said})")


def filesystem() -> Any:
    """The S3 client that the environment describes, as a file system of fsspec."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem

    # Arrow's client takes all from the environment but this.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return ArrowFSWrapper(S3FileSystem(endpoint_override=endpoint))


def _listing(store: Any, root: str) -> Listing:
    from pyarrow.fs import FileSelector, FileType

    # Not by fsspec's own walk, which leaves out what it cannot list instead of raising.
    (found,) = store.fs.get_file_info([root])
    if found.type == FileType.File:
        return Listing({root.rpartition("/")[2]: found.size}, single=True)
    below = store.fs.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
    objects = {entry.path.removeprefix(f"{root}/"): entry.size for entry in below if entry.type == FileType.File}
    return Listing(objects, single=False)


def _version(remote: Any) -> str:
    """The ETag of an opened object."""
    tag: bytes = remote.stream.metadata().get("ETag", b"")
    return tag.decode()
