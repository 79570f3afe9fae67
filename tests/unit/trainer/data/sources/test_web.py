"""https:// sources from a real server: fetched once, gone on with where they were cut, refused with a reason."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from falcon_trainer.data.sources import Sources, read
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.data.sources.files import rows_of, write
from tests.unit.trainer.data.sources.runs import Run
from tests.unit.trainer.data.sources.web_server import Site, serving

CONTENT = b"".join(b'{"number": %d}\n' % at for at in range(40_000))
NEWER = CONTENT.replace(b"number", b"newest")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority")


@pytest.fixture
def site(authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with serving(Site(CONTENT), authority) as served:
        monkeypatch.setenv("SSL_CERT_FILE", str(served.authority))
        yield served


def content(sources: Sources) -> bytes:
    (file,) = sources.training()
    return file.read_bytes()


def refusal(run: Run, uri: str) -> StageError:
    with pytest.raises(StageError) as caught:
        run.fetched(uri)
    return caught.value


def partial(run: Run) -> Path:
    (folder,) = run.downloads.glob(".*.partial")
    return folder


def test_a_file_is_fetched_once_and_never_asked_for_again(run: Run, site: Site) -> None:
    uri = f"{site.url}/data/train.jsonl?signature=secret"
    first = run.fetched(uri)
    assert content(first) == CONTENT
    assert first.training()[0].name == "train.jsonl"
    site.status = 500
    again = run.fetched(uri)
    assert content(again) == CONTENT
    assert len(site.asked) == 1
    address = f"{site.url}/data/train.jsonl"
    assert first.fingerprint() == again.fingerprint() == {address: hashlib.sha256(CONTENT).hexdigest()}


def test_a_signature_is_neither_logged_nor_kept(run: Run, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    run.fetched(f"{site.url}/train.jsonl?signature=secret")
    kept = [path for path in run.downloads.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"secret" in path.read_bytes()]
    out = capsys.readouterr()
    assert "secret" not in out.out + out.err


def test_a_connection_that_is_cut_goes_on_with_the_rest(run: Run, site: Site) -> None:
    site.faults = [("cut", 100_000), ("cut", 200_000), ("status", 503)]
    assert content(run.fetched(f"{site.url}/a.jsonl")) == CONTENT
    assert [request.get("range") for request in site.asked] == [
        None,
        "bytes=100000-",
        "bytes=300000-",
        "bytes=300000-",
    ]
    assert site.sent == len(CONTENT)


def test_a_pod_that_starts_anew_goes_on_with_what_an_earlier_one_left(run: Run, site: Site) -> None:
    site.faults = [("cut", 150_000)] + [("status", 503)] * 9
    error = refusal(run, f"{site.url}/a.jsonl")
    assert (error.code, error.reason) == (ExitCode.UNAVAILABLE, "SourceUnavailable")
    assert error.outcome().retryable
    assert "answers HTTP 503. What was fetched is kept" in error.message
    site.faults, site.sent = [], 0
    assert content(run.fetched(f"{site.url}/a.jsonl")) == CONTENT
    assert site.sent == len(CONTENT) - 150_000
    assert not list(run.downloads.glob(".*.partial"))


def test_a_file_that_was_whole_but_not_yet_kept_is_not_sent_again(run: Run, site: Site) -> None:
    uri = f"{site.url}/a.jsonl"
    site.faults = [("cut", len(CONTENT) - 1)] + [("status", 503)] * 9
    refusal(run, uri)
    with (partial(run) / "files" / "a.jsonl").open("ab") as file:
        file.write(CONTENT[-1:])
    site.faults, site.sent = [], 0
    assert content(run.fetched(uri)) == CONTENT
    assert site.sent == 0


@pytest.mark.parametrize("version", ['"v2"', None, 'W/"v1"'], ids=["another version", "no version", "a weak version"])
def test_a_file_that_changed_between_two_tries_is_fetched_anew(run: Run, site: Site, version: str | None) -> None:
    site.faults = [("cut", 150_000)] + [("status", 503)] * 9
    refusal(run, f"{site.url}/a.jsonl")
    site.content, site.version, site.faults = NEWER, version, []
    assert content(run.fetched(f"{site.url}/a.jsonl")) == NEWER


@pytest.mark.parametrize("first", [None, 'W/"v1"'], ids=["no version", "a weak version"])
def test_bytes_of_an_unknown_version_are_not_built_upon(run: Run, site: Site, first: str | None) -> None:
    site.version, site.faults = first, [("cut", 150_000)]
    assert content(run.fetched(f"{site.url}/a.jsonl")) == CONTENT
    assert all("range" not in request for request in site.asked)


def test_the_time_of_change_serves_where_there_is_no_version(run: Run, site: Site) -> None:
    changed = "Tue, 24 Nov 2026 10:00:00 GMT"
    site.version, site.headers, site.faults = None, {"Last-Modified": changed}, [("cut", 150_000)]
    assert content(run.fetched(f"{site.url}/a.jsonl")) == CONTENT
    assert site.asked[1]["if-range"] == changed


def test_a_server_without_ranges_is_read_from_the_start(run: Run, site: Site) -> None:
    site.ranges, site.faults = False, [("cut", 150_000)]
    assert content(run.fetched(f"{site.url}/a.jsonl")) == CONTENT


def test_the_log_says_now_and_then_how_far_a_download_is(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("falcon_trainer.data.sources.fetching.REPORT_SECONDS", 0.0)
    site.content = CONTENT * 3
    run.fetched(f"{site.url}/a.jsonl")
    out = capsys.readouterr().out
    assert f"{site.url}/a.jsonl: 2 of 2 MB fetched." in out
    assert f"Fetched {site.url}/a.jsonl: 2.1 MB." in out


def test_a_damaged_download_is_fetched_anew(run: Run, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = run.fetched(f"{site.url}/a.jsonl").training()
    file.write_bytes(NEWER)
    assert content(run.fetched(f"{site.url}/a.jsonl")) == CONTENT
    assert "it is fetched anew" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "code", "reason", "said"),
    [
        (404, ExitCode.NO_INPUT, "DataNotFound", "the server answers HTTP 404: check the address"),
        (410, ExitCode.NO_INPUT, "DataNotFound", "the server answers HTTP 410"),
        (401, ExitCode.NO_PERMISSION, "DataForbidden", "answers HTTP 401: it is not public"),
        (403, ExitCode.NO_PERMISSION, "DataForbidden", "Use a presigned address"),
        (429, ExitCode.UNAVAILABLE, "SourceUnavailable", "answers HTTP 429"),
        (500, ExitCode.UNAVAILABLE, "SourceUnavailable", "answers HTTP 500"),
    ],
)
def test_a_refusal_is_told_with_what_to_do(
    run: Run, site: Site, status: int, code: ExitCode, reason: str, said: str
) -> None:
    site.status = status
    error = refusal(run, f"{site.url}/a.jsonl?signature=secret")
    assert (error.code, error.reason) == (code, reason)
    assert said in error.message
    assert f"{site.url}/a.jsonl" in error.message
    assert "secret" not in error.message
    assert len(site.asked) == (2 if error.code == ExitCode.UNAVAILABLE else 1)


def test_a_web_page_is_no_file_of_records(run: Run, site: Site) -> None:
    site.headers = {"Content-Type": "text/html; charset=utf-8"}
    error = refusal(run, f"{site.url}/a.jsonl")
    assert error.code == ExitCode.NO_INPUT
    assert "answers with a web page, not with a file: is a login needed?" in error.message


@pytest.mark.parametrize(
    ("target", "said"),
    [("/elsewhere.jsonl", "it leads in a circle"), ("ftp://localhost/a", "leads to what cannot")],
    ids=["a circle", "another protocol"],
)
def test_a_redirection_that_leads_nowhere_is_told(run: Run, site: Site, target: str, said: str) -> None:
    site.status, site.headers = 302, {"Location": target}
    error = refusal(run, f"{site.url}/a.jsonl")
    assert error.code == ExitCode.NO_INPUT
    assert said in error.message


def test_a_server_of_an_unknown_authority_is_told_with_how_to_make_it_known(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    error = refusal(run, f"{site.url}/a.jsonl")
    assert error.code == ExitCode.UNAVAILABLE
    assert "SSL_CERT_FILE in podTemplate.prepare.env" in error.message


def test_a_server_that_cannot_be_reached_is_tried_again(run: Run) -> None:
    error = refusal(run, "https://127.0.0.1:9/a.jsonl")
    assert error.code == ExitCode.UNAVAILABLE
    assert "https://127.0.0.1:9/a.jsonl cannot be reached (ConnectError" in error.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_told(run: Run, site: Site) -> None:
    site.faults = [("cut", 0)] + [("status", 503)] * 9
    refusal(run, f"{site.url}/a.jsonl")
    file = partial(run) / "files" / "a.jsonl"
    file.unlink()
    file.symlink_to("/dev/full")
    site.faults = []
    error = refusal(run, f"{site.url}/a.jsonl")
    assert (error.code, error.reason) == (ExitCode.CANNOT_WRITE, "DiskFull")
    assert "The workspace claim is full while" in error.message


def test_a_file_that_has_no_room_is_refused_before_it_is_fetched(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(run.mounts)
    monkeypatch.setattr("falcon_trainer.data.sources.place.shutil.disk_usage", lambda path: usage._replace(free=1000))
    error = refusal(run, f"{site.url}/a.jsonl")
    assert (error.code, error.reason) == (ExitCode.CANNOT_WRITE, "WorkspaceTooSmall")
    assert site.url in error.message


def test_compressed_records_are_read_whether_their_name_says_so_or_not(run: Run, site: Site, tmp_path: Path) -> None:
    rows = rows_of(5)
    site.content = write(rows, tmp_path, "JSON Lines", ".gz").read_bytes()
    for name in ("a.jsonl.gz", "a.jsonl", "download"):
        (file,) = run.fetched(f"{site.url}/{name}").training()
        assert [record.fields for record in read(file)] == rows
