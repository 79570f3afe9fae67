"""Whether what a run wants published can be: targets that are written rightly, and that do not meet.

That a bucket exists, or that a credential is good for it, is the publish stage's to say.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from falcon_operator.api.resource import FalconFineTune, Problem
from falcon_operator.stages.naming import workspace_claim_name
from falcon_trainer import uris
from falcon_trainer.config import Publication


def publish_problems(run: FalconFineTune) -> Iterator[Problem]:
    """The problems of every publication of the run."""
    publications = run.spec.publish or []
    for index, publication in enumerate(publications):
        path = f"spec.publish[{index}]"
        yield from _target(run, publication, path)
        yield from _options(run, publication, path)
        yield from _meets(publication, publications[:index], path)


def _target(run: FalconFineTune, publication: Publication, path: str) -> Iterator[Problem]:
    if sentence := uris.problem(publication.uri, uris.PUBLICATION):
        yield Problem(f"{path}.uri", f"{publication.uri!r} cannot be used: {sentence}")
    elif _claim(publication) == workspace_claim_name(run):
        yield Problem(f"{path}.uri", "is the run's own workspace, where the results lie already: name another claim")


def _meets(publication: Publication, before: Sequence[Publication], path: str) -> Iterator[Problem]:
    """Two copies in one folder, or in a folder of each other, would take each other's files for left-overs."""
    place = _place(publication)
    for index, other in enumerate(before):
        taken = _place(other)
        if place and taken and place[: len(taken)] == taken[: len(place)]:
            text = f"{publication.uri!r} and the target of spec.publish[{index}] lie in each other: give each its own"
            yield Problem(f"{path}.uri", text)


def _place(publication: Publication) -> tuple[str, ...]:
    """What a URI means, part by part, however it is written; empty where it means nothing."""
    uri = publication.uri
    if uris.problem(uri, uris.PUBLICATION):
        return ()
    scheme, _ = uris.split(uri)
    if scheme == "hf":
        found = uris.hub_repository(uri)
        return (scheme, found.name, found.revision or "main")
    name, path = uris.bucket_and_path(uri) if scheme == "s3" else uris.claim_and_path(uri)
    return (scheme, name, *PurePosixPath(path).parts)


def _options(run: FalconFineTune, publication: Publication, path: str) -> Iterator[Problem]:
    if publication.what == "merged" and not run.spec.merge.enabled:
        yield Problem(
            f"{path}.what", "there is no merged model while merge.enabled is false: write adapter, or enable the merge"
        )
    if publication.secret_name and publication.uri.startswith("pvc://"):
        yield Problem(f"{path}.secretName", "a claim is mounted and needs no credentials: leave it out")
    if not publication.private and not publication.uri.startswith("hf://"):
        yield Problem(f"{path}.private", "only a repository of the Hub (hf://) is made public by this: leave it out")


def _claim(publication: Publication) -> str | None:
    return uris.claim_and_path(publication.uri)[0] if publication.uri.startswith("pvc://") else None
