"""s3:// sources from a real S3 store: objects and folders, fetched once, in parts, and refused with a reason."""

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from falcon_trainer.data.sources import bucket
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.data.sources import s3_store
from tests.unit.trainer.data.sources.runs import Run
from tests.unit.trainer.data.sources.s3_store import Store

CONTENT = b"".join(b'{"number": %d}\n' % at for at in range(40_000))
NEWER = CONTENT.replace(b"number", b"newest")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with s3_store.serving(tmp_path_factory.mktemp("s3")) as store:
        yield store


@pytest.fixture
def store(running: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    running.clear()
    monkeypatch.setattr(bucket, "BLOCK", 100_000)
    for name, value in (
        ("AWS_ENDPOINT_URL", running.url),
        ("AWS_ACCESS_KEY_ID", "somebody"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    return running


def refusal(run: Run, uri: str) -> StageError:
    with pytest.raises(StageError) as caught:
        run.fetched(uri)
    return caught.value


def test_an_object_is_fetched_in_parts_and_never_asked_for_again(run: Run, store: Store) -> None:
    store.put("a b/träin.jsonl", CONTENT)
    first = run.fetched("s3://records/a b/träin.jsonl")
    assert first.training()[0].read_bytes() == CONTENT
    assert sum(request.startswith("GET") for request in store.asked) == 8
    store.asked.clear()
    again = run.fetched("s3://records/a b/träin.jsonl")
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert first.fingerprint() == again.fingerprint() == {"s3://records/a b/träin.jsonl": digest}
    assert store.asked == []


def test_of_a_folder_only_the_wanted_splits_are_fetched(run: Run, store: Store) -> None:
    for name in ("data/train/0.jsonl.gz", "data/train/1.jsonl.gz", "data/dev/0.jsonl.gz", "data/test/0.jsonl.gz"):
        store.put(f"set/{name}", gzip.compress(b'{"name": "%s"}\n' % name.encode()))
    store.put("set/data/", b"")  # some tools mark folders so
    store.put("set/notes.txt", b"not records")
    store.put("settings/train.jsonl", b'{"name": "of another folder"}\n')
    sources = run.fetched("s3://records/set/", validation="validation")
    names = [str(record.fields["name"]) for file in sources.training() for record in sources.read(file)]
    assert names == ["data/train/0.jsonl.gz", "data/train/1.jsonl.gz"]
    assert [sources.shown(file) for file in sources.validation()] == ["data/dev/0.jsonl.gz"]
    assert not [request for request in store.asked if "test" in request or "notes" in request]
    assert set(sources.fingerprint()) == {
        f"s3://records/set/data/{name}.jsonl.gz" for name in ("train/0", "train/1", "dev/0")
    }


def test_a_whole_bucket_and_its_readme_are_obeyed(run: Run, store: Store) -> None:
    store.put("README.md", b"---\nconfigs: [{config_name: x, data_files: [{split: train, path: b.jsonl}]}]\n---\n")
    store.put("a.jsonl", b'{"a": 1}\n')
    store.put("b.jsonl", b'{"b": 1}\n')
    sources = run.fetched("s3://records")
    assert [sources.shown(file) for file in sources.training()] == ["b.jsonl"]


def after(count: int, status: int, code: str) -> s3_store.Fault:
    """Lets `count` reads of objects pass, then answers with an error."""
    passed: list[str] = []

    def fault(method: str, path: str) -> tuple[int, str] | None:
        if method == "GET" and path.count("/") > 1:
            passed.append(path)
        return (status, code) if len(passed) > count else None

    return fault


def test_a_pod_that_starts_anew_goes_on_with_what_an_earlier_one_left(run: Run, store: Store) -> None:
    store.put("a.jsonl", CONTENT)
    store.fault = after(3, 400, "ExpiredToken")
    error = refusal(run, "s3://records/a.jsonl")
    assert "HTTP 400" in error.message
    assert "the credentials have not expired" in error.message
    store.fault, store.sent = (lambda method, path: None), 0
    assert run.fetched("s3://records/a.jsonl").training()[0].read_bytes() == CONTENT
    assert store.sent == len(CONTENT) - 300_000


def test_an_object_that_changed_between_two_tries_is_fetched_anew(run: Run, store: Store) -> None:
    store.put("a.jsonl", CONTENT)
    store.fault = after(3, 400, "ExpiredToken")
    refusal(run, "s3://records/a.jsonl")
    store.put("a.jsonl", NEWER)
    store.fault = lambda method, path: None
    assert run.fetched("s3://records/a.jsonl").training()[0].read_bytes() == NEWER


def test_an_object_that_changes_while_it_is_fetched_is_fetched_anew(run: Run, store: Store) -> None:
    store.put("a.jsonl", CONTENT)
    reads: list[str] = []

    def change(method: str, path: str) -> None:
        if method == "GET" and path.count("/") > 1:
            reads.append(path)
            if len(reads) == 3:
                store.put("a.jsonl", NEWER)

    store.fault = change
    assert run.fetched("s3://records/a.jsonl").training()[0].read_bytes() == NEWER


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://records/none.jsonl", "there is no such object, and no key begins with it and a '/'"),
        ("s3://nowhere/a.jsonl", "there is no such"),
        ("s3://records/notes", "the folder holds no file of records"),
    ],
    ids=["no such object", "no such bucket", "a folder without records"],
)
def test_what_is_not_there_is_told(run: Run, store: Store, uri: str, said: str) -> None:
    store.put("notes/a.txt", b"x")
    error = refusal(run, uri)
    assert (error.code, error.reason) == (ExitCode.NO_INPUT, "DataNotFound")
    assert error.message.startswith(uri)
    assert said in error.message


@pytest.mark.parametrize(
    ("status", "s3_code", "code", "reason", "said"),
    [
        (403, "AccessDenied", ExitCode.NO_PERMISSION, "DataForbidden", "AWS_* variables in podTemplate.prepare.env"),
        (301, "PermanentRedirect", ExitCode.NO_INPUT, "DataNotFound", "(HTTP 301): check AWS_REGION"),
        (503, "SlowDown", ExitCode.UNAVAILABLE, "SourceUnavailable", "What was fetched is kept"),
    ],
)
def test_a_refusal_is_told_with_what_to_do(
    run: Run, store: Store, status: int, s3_code: str, code: ExitCode, reason: str, said: str
) -> None:
    store.put("a.jsonl", CONTENT)
    store.fault = lambda method, path: (status, s3_code)
    error = refusal(run, "s3://records/a.jsonl")
    assert (error.code, error.reason) == (code, reason)
    assert said in error.message
    assert "s3://records/a.jsonl" in error.message


def test_a_listing_that_breaks_off_is_no_smaller_data_set(run: Run, store: Store) -> None:
    store.put("set/a.jsonl", CONTENT)
    store.fault = lambda method, path: (403, "AccessDenied") if method == "GET" else None
    assert refusal(run, "s3://records/set").code == ExitCode.NO_PERMISSION


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "not an address"])
def test_a_store_that_cannot_be_reached_is_told(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    error = refusal(run, "s3://records/a.jsonl")
    if endpoint.startswith("http"):
        assert error.code == ExitCode.UNAVAILABLE
        assert "NETWORK_CONNECTION" in error.message
    else:
        assert error.code == ExitCode.NO_INPUT
        assert "AWS_ENDPOINT_URL" in error.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_told(run: Run, store: Store) -> None:
    store.put("a.jsonl", CONTENT)
    store.fault = after(1, 400, "ExpiredToken")
    refusal(run, "s3://records/a.jsonl")
    (folder,) = run.downloads.glob(".*.partial")
    (folder / "files" / "a.jsonl").unlink()
    (folder / "files" / "a.jsonl").symlink_to("/dev/full")
    store.fault = lambda method, path: None
    error = refusal(run, "s3://records/a.jsonl")
    assert (error.code, error.reason) == (ExitCode.CANNOT_WRITE, "DiskFull")
