"""The publish stage: each publication in turn; one that fails does not keep the others from being made."""

import traceback
from pathlib import Path

from pydantic import JsonValue

from falcon_trainer import layout as places
from falcon_trainer.artifacts import read_manifest
from falcon_trainer.beats import Beats
from falcon_trainer.config import Publication, RunConfig
from falcon_trainer.faults import understand
from falcon_trainer.layout import RunLayout, published_claim_folder
from falcon_trainer.outcome import RETRYABLE, ExitCode, StageError
from falcon_trainer.publish.bucket import BucketFolder
from falcon_trainer.publish.claim import ClaimFolder
from falcon_trainer.publish.parcel import Parcel, Target
from falcon_trainer.publish.repository import HubRepository
from falcon_trainer.uris import claim_target, split


def publish(config: RunConfig, beats: Beats, layout: RunLayout) -> dict[str, JsonValue]:
    """Makes all copies, or finds them made. Raises the StageError of a publication that failed, after the others were
    tried: one that may succeed by itself before one that needs a person.
    """
    told: list[JsonValue] = []
    failed: list[StageError] = []
    for index, publication in enumerate(config.publish or []):
        try:
            told.append(_publish(config, publication, index, beats, layout))
        except Exception as error:
            known = _named(error, publication)
            print(f"{publication.uri}: {known.reason}: {known.message}", flush=True)
            failed.append(known)
    if failed:
        raise next((error for error in failed if error.code in RETRYABLE), failed[0])
    return {"published": told}


def _publish(
    config: RunConfig, publication: Publication, index: int, beats: Beats, layout: RunLayout
) -> dict[str, JsonValue]:
    parcel = _parcel(config, publication, layout)
    total = sum(entry.bytes for entry in parcel.files.values())
    megabytes = max(total >> 20, 1)

    def progress(done: int) -> None:
        message = f"{publication.uri}: {done / total:.0%} of bytes"
        beats.update("publish", step=min(done >> 20, megabytes), total_steps=megabytes, message=message)

    progress(0)
    revision = _target(publication, index).receive(parcel, progress)
    print(f"{publication.uri} holds the {publication.what} {parcel.digest}.", flush=True)
    told: dict[str, JsonValue] = {
        "uri": publication.uri,
        "what": publication.what,
        "digest": parcel.digest,
        "bytes": parcel.manifest.total_bytes,
    }
    return told | ({"revision": revision} if revision else {})


def _named(error: Exception, publication: Publication) -> StageError:
    """What a failure means; one that no target foresaw does not say whose it is."""
    if isinstance(error, StageError):
        return error
    traceback.print_exception(error)
    known = understand(error, "publish")
    return StageError(known.code, known.reason, f"{publication.uri}: {known.message}")


def _parcel(config: RunConfig, publication: Publication, layout: RunLayout) -> Parcel:
    artifact = config.adapter if publication.what == "adapter" else config.merged
    if artifact is None:
        raise StageError(
            ExitCode.CONFIGURATION, "InvalidConfiguration", f"The run configuration names no {publication.what}."
        )
    folder = layout.workspace / artifact.path
    manifest = read_manifest(folder)
    if manifest is None or f"sha256:{manifest.digest}" != artifact.digest:
        text = f"{folder} does not hold the {publication.what} {artifact.digest}: was the workspace changed?"
        raise StageError(ExitCode.NO_INPUT, "ResultNotFound", text)
    return Parcel(folder, manifest)


def _target(publication: Publication, index: int) -> Target:
    uri = publication.uri
    scheme, _ = split(uri)
    if scheme == "pvc":
        claim, path = claim_target(uri)
        return ClaimFolder(published_claim_folder(claim) / path, uri)
    secrets = _secrets(places.PUBLISH_SECRETS / str(index))
    if scheme == "s3":
        return BucketFolder(uri, secrets)
    return HubRepository(uri, secrets, private=publication.private)


def _secrets(folder: Path) -> dict[str, str]:
    """The keys of a mounted Secret; Kubernetes keeps its own entries, which begin with '..', beside them."""
    if not folder.is_dir():
        return {}
    return {path.name: path.read_text().strip() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}
