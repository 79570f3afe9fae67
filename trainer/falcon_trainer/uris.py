"""The URIs of sources, taken apart: one grammar for the operator, which refuses, and for the trainer, which reads.

Each function raises ValueError with a clause that says what is wrong and how it is written.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from falcon_trainer.wire import NAME_PATTERN

LONGEST_NAME = 253
"""Characters of a name in Kubernetes, and of a key in a ConfigMap."""
HUB_NAME = r"[A-Za-z0-9][-\w.]*/[A-Za-z0-9][-\w.]*"
HUB_REFERENCE = re.compile(r"(?<=@)refs/(?:convert/\w+|pr/\d+)(?=/|$)")
"""Revisions that hold a '/'; in any other one it is written %2F (as in huggingface_hub's HfFileSystem)."""
BUCKET = r"[A-Za-z0-9][-.\w]{1,254}"


@dataclass(frozen=True)
class HubPath:
    """A repository of the Hub, and what of it is meant: the whole of it where `path` is empty."""

    name: str
    revision: str | None = None
    path: str = ""


def split(uri: str) -> tuple[str, str]:
    """Scheme, and what stands behind `://`."""
    scheme, _, rest = uri.partition("://")
    return scheme, rest


def shown(uri: str) -> str:
    """A URI as others may read it: what stands behind the '?' of a web address may be a signature."""
    return uri.partition("?")[0] if uri.startswith("https://") else uri


def claim_and_path(uri: str) -> tuple[str, str]:
    """Claim and path of pvc://CLAIM/PATH."""
    claim, _, path = split(uri)[1].partition("/")
    if not _is_name(claim):
        raise ValueError(f"{claim!r} is no name of a claim; write pvc://CLAIM/PATH")
    if not _stays_inside(path):
        raise ValueError("the path must stay inside the claim, without '..' and without a second '/' at its beginning")
    return claim, path


def config_map_and_key(uri: str) -> tuple[str, str]:
    """Name and key of configmap://NAME[/KEY]; no key means all of them."""
    name, _, key = split(uri)[1].partition("/")
    if not _is_name(name):
        raise ValueError(f"{name!r} is no name of a ConfigMap; write configmap://NAME or configmap://NAME/KEY")
    if key and (key.startswith("..") or not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key)):
        raise ValueError(f"{key!r} is no key of a ConfigMap: letters, digits, '-', '_' and '.' only")
    return name, key


def bucket_and_path(uri: str) -> tuple[str, str]:
    """Bucket and path of s3://BUCKET/PATH; the path may be an object's key, or how several keys begin."""
    bucket, _, path = split(uri)[1].partition("/")
    if not re.fullmatch(BUCKET, bucket):
        raise ValueError(f"{bucket!r} is no name of a bucket; write s3://BUCKET/PATH")
    if not _stays_inside(path) or "//" in path:
        raise ValueError("the path must be plain, without '..' and without two '/' in a row")
    return bucket, path


def web_address(uri: str) -> str:
    """The address of https://HOST/PATH, as it is."""
    if re.search(r"\s", uri):
        raise ValueError("it holds a space: write it as %20")
    parts = urlsplit(uri)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0:
        raise ValueError("it names no host; write https://HOST/PATH")
    if parts.username is not None:
        raise ValueError("a user and password do not belong into a spec that others can read: use a presigned address")
    if not parts.path.strip("/"):
        raise ValueError(f"it names no file on {host}; write https://HOST/PATH")
    return uri


def hub_model(uri: str) -> str:
    """OWNER/NAME of a model, whose revision is a field of its own."""
    name = split(uri)[1]
    if not re.fullmatch(HUB_NAME, name):
        raise ValueError(
            "write hf://OWNER/NAME, such as hf://tiiuae/falcon-7b; a branch or commit goes into model.revision"
        )
    return name


def hub_adapter(uri: str) -> HubPath:
    """An adapter of the Hub: hf://OWNER/NAME[@REVISION], a whole repository."""
    found = _hub_path(uri, "hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    if found.path:
        raise ValueError("an adapter is a whole repository: write hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    return found


def hub_repository(uri: str) -> HubPath:
    """A model repository to write to: hf://OWNER/NAME[@BRANCH]; the whole of it is the result's."""
    found = _hub_path(uri, "hf://OWNER/NAME or hf://OWNER/NAME@BRANCH")
    if found.path:
        raise ValueError("a result fills a whole repository: write hf://OWNER/NAME or hf://OWNER/NAME@BRANCH")
    return found


def bucket_folder(uri: str) -> tuple[str, str]:
    """Bucket and folder of s3://BUCKET/PATH to write to."""
    bucket, path = bucket_and_path(uri)
    if not path.strip("/"):
        raise ValueError("a result needs a folder of its own: write s3://BUCKET/PATH")
    return bucket, path.strip("/")


def claim_target(uri: str) -> tuple[str, str]:
    """Claim and folder of pvc://CLAIM/PATH to write to."""
    claim, path = claim_and_path(uri)
    if not path.strip("/"):
        raise ValueError("a result needs a folder of its own: write pvc://CLAIM/PATH")
    return claim, path.strip("/")


def hub_data(uri: str) -> HubPath:
    """A data set of the Hub: hf://OWNER/NAME[@REVISION][/PATH]."""
    return _hub_path(uri, "hf://OWNER/NAME, hf://OWNER/NAME@REVISION or hf://OWNER/NAME/PATH")


Grammar = dict[str, Callable[[str], object]]
"""scheme → what takes such a URI apart"""

DATA: Grammar = {
    "pvc": claim_and_path,
    "configmap": config_map_and_key,
    "https": web_address,
    "s3": bucket_and_path,
    "hf": hub_data,
}
MODEL: Grammar = {"pvc": claim_and_path, "hf": hub_model}
PUBLICATION: Grammar = {"pvc": claim_target, "s3": bucket_folder, "hf": hub_repository}
ADAPTER: Grammar = {"pvc": claim_and_path, "hf": hub_adapter}


def problem(uri: str, grammar: Grammar) -> str | None:
    """Why a URI cannot be used where `grammar` says which ones can; None where it can."""
    scheme = split(uri)[0]
    if re.search(r"[\x00-\x1f\x7f]", uri):
        return "it holds a line end or another control character"
    parse = grammar.get(scheme)
    if parse is None:
        return f"{scheme}:// cannot be used here; known are {', '.join(f'{known}://' for known in grammar)}"
    try:
        parse(uri)
    except ValueError as error:
        return str(error)
    return None


def _hub_path(uri: str, form: str) -> HubPath:
    rest = split(uri)[1]
    match = re.match(rf"{HUB_NAME}(?=[@/]|$)", rest)
    name = match.group() if match else ""
    revision, path = _revision_and_path(rest[len(name) :])
    if not name or revision == "" or not _stays_inside(path):
        raise ValueError(f"write {form}")
    return HubPath(name, revision, path)


def _revision_and_path(rest: str) -> tuple[str | None, str]:
    """Of what follows the name: `@REVISION`, `/PATH`, both or nothing."""
    if reference := HUB_REFERENCE.match(rest, 1):
        return reference.group(), rest[reference.end() :].strip("/")
    before, _, path = rest.partition("/")
    return (unquote(before[1:]) if before.startswith("@") else None), path.strip("/")


def _is_name(name: str) -> bool:
    return len(name) <= LONGEST_NAME and re.fullmatch(NAME_PATTERN, name) is not None


def _stays_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")
