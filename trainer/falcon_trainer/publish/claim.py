"""pvc:// targets: a folder of another claim, written beside its name and renamed into place."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from falcon_trainer.artifacts import FileEntry, problem, read_manifest, sha256_of, sync
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.publish.parcel import Parcel, Progress, counted


@dataclass(frozen=True)
class ClaimFolder:
    """A folder of a claim that is mounted; `uri` is how the run names it."""

    folder: Path
    uri: str

    def receive(self, parcel: Parcel, progress: Progress) -> None:
        """As Target.receive. An earlier result under the name is replaced; anything else is left alone and refused."""
        standing = read_manifest(self.folder)
        if standing == parcel.manifest and problem(self.folder, parcel.manifest, contents=True) is None:
            return
        if standing is None and self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise StageError(
                ExitCode.CANNOT_WRITE,
                "TargetTaken",
                f"{self.uri} holds something that is no result of this product: name another folder, or empty it.",
            )
        with self._room():
            draft = self._draft(parcel)
            draft.mkdir(parents=True, exist_ok=True)
            for name, entry in counted(parcel, progress):
                _copy(parcel, name, entry, draft / name)
            self._put_in_place(draft)

    def _draft(self, parcel: Parcel) -> Path:
        """Named by what is copied, so that the next pod goes on with it."""
        return self.folder.with_name(f".{self.folder.name}.{parcel.manifest.digest[:16]}.draft")

    def _put_in_place(self, draft: Path) -> None:
        sync(draft)
        old = self.folder.with_name(f".{self.folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(old)
        draft.rename(self.folder)
        sync(self.folder.parent)
        shutil.rmtree(old, ignore_errors=True)
        # No glob: a folder `model` must not take the drafts of a folder `model.v2` beside it.
        ours = re.compile(rf"\.{re.escape(self.folder.name)}\.[0-9a-f]{{16}}\.draft")
        for left in self.folder.parent.iterdir():
            if ours.fullmatch(left.name):
                shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                text = f"The claim of {self.uri} is full. Enlarge it or free space; the copy goes on where it stopped."
                raise StageError(ExitCode.CANNOT_WRITE, "TargetFull", text) from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                text = f"The claim of {self.uri} cannot be written: {error.strerror} ({error.filename})."
                raise StageError(ExitCode.NO_PERMISSION, "TargetForbidden", text) from error
            raise


def _copy(parcel: Parcel, name: str, entry: FileEntry, path: Path) -> None:
    """Copies one file, unless it is there already, and reads it back."""
    if path.is_file() and path.stat().st_size == entry.bytes and sha256_of(path) == entry.sha256:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(parcel.checked(name), path)
    path.chmod(0o644)
    sync(path)
    with path.open("rb") as file:
        # What is in the page cache would only show what was meant to be written.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if sha256_of(path) != entry.sha256:
        text = f"{path} was not written as it was read: the claim's storage is not to be trusted."
        raise StageError(ExitCode.TRY_AGAIN, "CopyDamaged", text)
