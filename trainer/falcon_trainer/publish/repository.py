"""hf:// targets: a model repository of the Hub, made where it is missing.

huggingface_hub itself goes on where an upload stopped (it drops files that the repository has, and the store knows the
chunks it has). What the repository holds in the end is compared file by file with the manifest.
"""

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from falcon_trainer.artifacts import FileEntry, Manifest
from falcon_trainer.layout import MANIFEST
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.publish.parcel import Parcel, Progress, left_over
from falcon_trainer.uris import hub_repository

BRANCH = "main"


class HubRepository:
    """A repository and branch. `secrets` are the files of the mounted Secret: `token`."""

    def __init__(self, uri: str, secrets: Mapping[str, str], *, private: bool) -> None:
        self._uri, self._private = uri, private
        named = hub_repository(uri)
        self._name, self._branch = named.name, named.revision or BRANCH
        self._token = secrets.get("token")

    def receive(self, parcel: Parcel, progress: Progress) -> str:
        """As Target.receive; returns the commit."""
        from huggingface_hub import HfApi

        with self._explained():
            api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=self._token or False)
            api.create_repo(self._name, private=self._private, exist_ok=True)
            if self._branch != BRANCH:
                api.create_branch(self._name, branch=self._branch, exist_ok=True)
            if self._differing(api, parcel):
                self._send(api, parcel)
            if wrong := self._differing(api, parcel):
                text = f"{self._uri}: {', '.join(wrong[:3])} is not what was sent: does somebody else write there?"
                raise StageError(ExitCode.TRY_AGAIN, "CopyDamaged", text)
            commit = str(api.model_info(self._name, revision=self._branch).sha)
        progress(sum(entry.bytes for entry in parcel.files.values()))
        return commit

    def _send(self, api: Any, parcel: Parcel) -> None:
        for name in parcel.files:
            parcel.checked(name)
        earlier = self._earlier(api)
        api.upload_folder(
            repo_id=self._name,
            folder_path=parcel.folder,
            revision=self._branch,
            allow_patterns=[glob.escape(name) for name in parcel.files],
            delete_patterns=[glob.escape(name) for name in left_over(earlier, parcel)] if earlier else None,
            commit_message=f"Publish {parcel.manifest.kind} {parcel.digest}",
        )

    def _earlier(self, api: Any) -> Manifest | None:
        """The manifest on the branch; None where there is none of this product."""
        from huggingface_hub import errors, get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

        url = hf_hub_url(self._name, MANIFEST, revision=self._branch, endpoint=api.endpoint)
        headers = build_hf_headers(token=self._token or False)
        response = get_session().get(url, headers=headers, follow_redirects=True)
        try:
            hf_raise_for_status(response)
            return Manifest.model_validate_json(response.content)
        except (errors.EntryNotFoundError, ValidationError):
            return None

    def _differing(self, api: Any, parcel: Parcel) -> list[str]:
        """Names of the files that the branch does not hold as the manifest says."""
        remote = {entry.path: entry for entry in api.list_repo_tree(self._name, recursive=True, revision=self._branch)}
        return [
            name for name, entry in parcel.files.items() if not _same(remote.get(name), entry, parcel.folder / name)
        ]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the Hub's errors into StageErrors that say what to do."""
        from huggingface_hub import errors

        unreached: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
        try:
            yield
        except (errors.HfHubHTTPError, unreached, ConnectionError) as error:
            response = getattr(error, "response", None)
            raise self._meaning(error, response.status_code if response is not None else None) from error

    def _meaning(self, error: Exception, status: int | None) -> StageError:
        if status in (401, 403, 404):
            return StageError(
                ExitCode.NO_PERMISSION,
                "TargetForbidden",
                f"{self._uri}: the Hub answers HTTP {status}. publish[].secretName needs a Secret whose key `token` "
                f"holds a token that may write to {self._name}, and make it if it is not there.",
            )
        if status in (400, 409, 413, 422):
            text = f"{self._uri}: the Hub refuses it (HTTP {status}): {error}"
            return StageError(ExitCode.CANNOT_WRITE, "TargetRefused", text)
        said = f"the Hub answers HTTP {status}" if status else f"the Hub cannot be reached ({type(error).__name__})"
        text = f"{self._uri}: {said}. What was copied is kept, and the next try goes on from it."
        return StageError(ExitCode.UNAVAILABLE, "TargetUnavailable", text)


def _same(remote: Any, entry: FileEntry, path: Path) -> bool:
    """The Hub knows the SHA-256 of large files, and of small ones git's own digest."""
    if remote is None or remote.size != entry.bytes:
        return False
    if remote.lfs is not None:
        return bool(remote.lfs.sha256 == entry.sha256)
    content = path.read_bytes()
    return bool(
        remote.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    )
