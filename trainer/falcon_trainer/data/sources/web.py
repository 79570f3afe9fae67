"""https:// sources: one file, streamed, and gone on with where the connection was cut."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pydantic import JsonValue

from falcon_trainer.data.sources.choosing import Chosen, Wanted, single
from falcon_trainer.data.sources.fetching import PartialFile, UnavailableError, patiently, reported, room
from falcon_trainer.data.sources.place import FILES, NOTES, Remote, require_space
from falcon_trainer.outcome import ExitCode, StageError

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS, READ_SECONDS = 15.0, 60.0
MOMENTARY = frozenset({408, 425, 429})
"""Statuses, beside 5xx, that may pass."""
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class Web(Remote):
    """A file of a web server. SSL_CERT_FILE and the proxy variables of the environment are obeyed."""

    def __init__(self, wanted: Wanted, downloads: Path) -> None:
        super().__init__(wanted, downloads)
        last = unquote(urlsplit(wanted.uri).path.rstrip("/").rpartition("/")[2])
        self._name = re.sub(r"[/\x00]", "-", last).lstrip(".")[-200:] or "records"

    def download(self, folder: Path) -> tuple[Chosen, dict[str, JsonValue]]:
        """As Remote.download."""
        file = PartialFile(folder / FILES / self._name, folder / NOTES / self._name)
        with room(self.wanted):
            patiently(lambda: self._attempt(file), lambda: file.size, self.wanted)
        return single(self._name, self.wanted), {"uri": self.wanted.shown, "version": file.version}

    def _attempt(self, file: PartialFile) -> None:
        import httpx

        # Whatever is packed on the way could not be gone on with in its middle.
        headers = {"User-Agent": "falcon-trainer", "Accept-Encoding": "identity"}
        if version := file.version:
            headers |= {"Range": f"bytes={file.size}-", "If-Range": version}
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        try:
            with (
                httpx.Client(follow_redirects=True, timeout=timeout) as client,
                client.stream("GET", self.wanted.uri, headers=headers) as response,
            ):
                self._receive(response, file)
        except httpx.TooManyRedirects as error:
            raise self.wanted.missing("it leads in a circle") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self.wanted.missing(f"it cannot be used or leads to what cannot ({error})") from error
        except httpx.TransportError as error:
            raise UnavailableError(_unreached(error)) from error

    def _receive(self, response: "httpx.Response", file: PartialFile) -> None:
        self._refuse(response)
        first, total = _range(response)
        if response.status_code == 416 and total == file.size:
            return  # Nothing lies behind the last byte that is there: that was all.
        if response.status_code == 200:
            file.begin(_version(response))
        elif first != file.size or response.status_code == 416:
            file.begin(None)
            raise UnavailableError("is no longer what was fetched of it")
        if total is not None:
            require_space(self._folder.parent, [total - file.size], self.wanted)
        file.append(reported(_blocks(response), file.size, total, self.wanted))
        if total is not None and file.size != total:
            raise UnavailableError(f"broke off after {file.size} of {total} bytes")

    def _refuse(self, response: "httpx.Response") -> None:
        """Raises what a status means; returns where a body of records follows."""
        status = response.status_code
        if response.url.scheme != "https":
            raise self.wanted.missing(f"it leads to {response.url.host} without encryption")
        if status in (401, 403):
            raise StageError(
                ExitCode.NO_PERMISSION,
                "DataForbidden",
                f"{self.wanted.shown} answers HTTP {status}: it is not public. Use a presigned address (it may have "
                "expired), or put the file on a claim or in a bucket.",
            )
        if status in MOMENTARY or status >= 500:
            raise UnavailableError(f"answers HTTP {status}")
        if status not in (200, 206, 416):
            raise self.wanted.missing(f"the server answers HTTP {status}: check the address")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise self.wanted.missing("the server answers with a web page, not with a file: is a login needed?")


def _blocks(response: "httpx.Response") -> Iterator[bytes]:
    import httpx

    try:
        # As they come: larger blocks would be lost with the connection that is cut in their middle.
        yield from response.iter_raw()
    except httpx.TransportError as error:
        raise UnavailableError(_unreached(error)) from error


def _version(response: "httpx.Response") -> str | None:
    """What tells one version of the file from another: a strong ETag, else the time of its change (RFC 9110)."""
    tag: str = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _range(response: "httpx.Response") -> tuple[int, int | None]:
    """The first byte that the body holds, and the size of the whole file where that is told."""
    if match := CONTENT_RANGE.match(response.headers.get("Content-Range", "")):
        first, total = match.groups()
        return int(first or 0), int(total) if total.isdecimal() else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() and response.status_code == 200 else None


def _unreached(error: Exception) -> str:
    hint = ""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        hint = "; a private authority is made known by SSL_CERT_FILE in podTemplate.prepare.env"
    return f"cannot be reached ({type(error).__name__}: {error}{hint})"
