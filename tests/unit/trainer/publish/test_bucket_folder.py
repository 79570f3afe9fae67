"""Results in a bucket."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from falcon_trainer.artifacts import FileEntry, Manifest
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.publish import bucket
from falcon_trainer.publish.parcel import Parcel, left_over
from tests.unit.trainer.data.sources.s3_store import BUCKET, Store, serving
from tests.unit.trainer.publish.parcels import FILES, Results, contents

TO_BUCKET = {"uri": f"s3://{BUCKET}/models/falcon"}
ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"\x02" * 5000}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with serving(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def store(results: Results, running: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    running.clear()
    results.secret(
        0, AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s", AWS_REGION="us-east-1", AWS_ENDPOINT_URL=running.url
    )
    monkeypatch.setattr(bucket, "TRIES", 2)
    return running


def objects(store: Store) -> dict[str, dict[str, Any]]:
    """Contents and metadata of what lies in the folder, by name."""
    client = boto3.client(
        "s3", endpoint_url=store.behind, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    found = {}
    for key in [each["Key"] for each in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]:
        content = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        digest = client.head_object(Bucket=BUCKET, Key=key)["Metadata"].get("Sha256")  # in this store's own spelling
        found[key.removeprefix("models/falcon/")] = {"content": content, "sha256": digest}
    return found


def sent(store: Store) -> list[str]:
    """Names of the objects that were written."""
    return [
        path.rpartition("/")[2] for method, _, path in (line.partition(" ") for line in store.asked) if method == "PUT"
    ]


def test_each_file_becomes_an_object_that_carries_its_digest(results: Results, store: Store) -> None:
    merged = results.put("merged", FILES)
    (told,) = results.publish(TO_BUCKET, merged=merged)
    expected = contents(results.layout.workspace / str(merged["path"]))
    assert objects(store) == {
        name: {"content": content, "sha256": hashlib.sha256(content).hexdigest()} for name, content in expected.items()
    }
    assert told["digest"] == merged["digest"]
    assert sent(store)[-1] == "manifest.json", "who finds the manifest finds the rest"


def test_a_large_file_goes_in_parts(results: Results, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PART", 5 << 20)  # S3's smallest
    large = bytes(range(256)) * (11 << 12)
    results.publish(TO_BUCKET, merged=results.put("merged", {"model.safetensors": large}))
    assert objects(store)["model.safetensors"]["content"] == large
    assert sent(store).count("model.safetensors") == 3


def test_a_second_run_of_the_stage_sends_nothing(results: Results, store: Store) -> None:
    merged = results.put("merged", FILES)
    first = results.publish(TO_BUCKET, merged=merged)
    store.asked.clear()
    assert results.publish(TO_BUCKET, merged=merged) == first
    assert sent(store) == []


def test_a_copy_goes_on_where_it_stopped(results: Results, store: Store) -> None:
    merged = results.put("merged", FILES)
    store.fault = lambda method, path: (
        (503, "SlowDown") if method == "PUT" and path.endswith("00002-of-00002.safetensors") else None
    )
    with pytest.raises(StageError, match="SlowDown") as failed:
        results.publish(TO_BUCKET, merged=merged)
    assert failed.value.code == ExitCode.UNAVAILABLE
    assert "manifest.json" not in objects(store)
    store.fault = lambda method, path: None
    store.asked.clear()
    results.publish(TO_BUCKET, merged=merged)
    assert sent(store) == ["model-00002-of-00002.safetensors", "notes.txt", "manifest.json"]


def test_an_object_that_somebody_changed_is_sent_anew(results: Results, store: Store) -> None:
    merged = results.put("merged", FILES)
    results.publish(TO_BUCKET, merged=merged)
    store.put("models/falcon/config.json", b"[1]")  # of another size: this store keeps old metadata
    results.publish(TO_BUCKET, merged=merged)
    assert objects(store)["config.json"]["content"] == FILES["config.json"]


def test_files_of_an_earlier_result_go_once_the_new_manifest_stands(results: Results, store: Store) -> None:
    results.publish(TO_BUCKET | {"what": "adapter"}, adapter=results.put("adapter", ADAPTER))
    store.put("models/falcon/NOTES.md", b"a user's")
    store.asked.clear()
    merged = results.put("merged", FILES)
    results.publish(TO_BUCKET, merged=merged)
    assert objects(store).keys() == contents(results.layout.workspace / str(merged["path"])).keys() | {"NOTES.md"}
    written = [line.partition(f"/{TO_BUCKET['uri'][5:]}/") for line in store.asked if line[:3] in ("PUT", "DEL")]
    told = [f"{method.strip()} {name}" for method, _, name in written]
    first, new = told.index("PUT config.json"), told.index("PUT manifest.json")
    assert told[:first] == ["PUT manifest.json.replaced", "DELETE manifest.json"], "no manifest of a mixture"
    assert told[new + 1 :] == [*(f"DELETE {name}" for name in sorted(ADAPTER)), "DELETE manifest.json.replaced"]


def test_what_is_to_go_is_known_to_the_pod_that_goes_on(results: Results, store: Store) -> None:
    results.publish(TO_BUCKET | {"what": "adapter"}, adapter=results.put("adapter", ADAPTER))
    merged = results.put("merged", FILES)
    expected = contents(results.layout.workspace / str(merged["path"])).keys()
    for dies_at in ("PUT config.json", "PUT manifest.json", "DELETE adapter_model.safetensors"):
        store.fault = lambda method, path, at=dies_at: (  # type: ignore[misc]
            (403, "AccessDenied") if f"{method} {path.rpartition('/')[2]}" == at else None
        )
        with pytest.raises(StageError, match="AccessDenied"):
            results.publish(TO_BUCKET, merged=merged)
    store.fault = lambda method, path: None
    results.publish(TO_BUCKET, merged=merged)
    assert objects(store).keys() == expected


def test_a_manifest_of_something_else_removes_nothing(results: Results, store: Store) -> None:
    store.put("models/falcon/manifest.json", b'{"files": ["thesis.tex"]}')
    store.put("models/falcon/thesis.tex", b"years of work")
    results.publish(TO_BUCKET, merged=results.put("merged", FILES))
    assert objects(store)["thesis.tex"]["content"] == b"years of work"


def test_a_manifest_leads_to_nothing_outside_its_folder() -> None:
    entry = FileEntry(bytes=1, sha256="0" * 64)
    names = ["../other", "/etc/passwd", "a//b", "a/../../b", "./c", "in/it", ".hidden"]
    earlier = Manifest(kind="merged", files=dict.fromkeys(names, entry), facts={})
    parcel = Parcel(Path("/nowhere"), Manifest(kind="merged", files={}, facts={}))
    assert left_over(earlier, parcel) == [".hidden", "in/it"]


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        ((403, "AccessDenied"), ExitCode.NO_PERMISSION, r"publish\[\]\.secretName"),
        ((403, "SignatureDoesNotMatch"), ExitCode.NO_PERMISSION, r"publish\[\]\.secretName"),
        ((404, "NoSuchBucket"), ExitCode.CANNOT_WRITE, "check the bucket's name"),
        ((503, "SlowDown"), ExitCode.UNAVAILABLE, "the next try goes on from it"),
    ],
)
def test_refusals_say_what_to_do(
    results: Results, store: Store, fault: tuple[int, str], code: ExitCode, sentence: str
) -> None:
    store.fault = lambda method, path: fault if method == "PUT" else None
    with pytest.raises(StageError, match=sentence) as failed:
        results.publish(TO_BUCKET, merged=results.put("merged", FILES))
    assert failed.value.code == code


def test_a_store_that_cannot_be_reached_is_tried_again(results: Results, store: Store) -> None:
    (results.secrets / "0" / "AWS_ENDPOINT_URL").write_text("http://127.0.0.1:9")
    with pytest.raises(StageError) as failed:
        results.publish(TO_BUCKET, merged=results.put("merged", FILES))
    assert failed.value.code == ExitCode.UNAVAILABLE


def test_without_credentials_a_person_is_asked(results: Results, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (results.secrets / "0" / name).unlink()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(StageError, match="no credentials") as failed:
        results.publish(TO_BUCKET, merged=results.put("merged", FILES))
    assert failed.value.code == ExitCode.NO_PERMISSION


@pytest.mark.parametrize(
    ("name", "value", "code", "sentence"),
    [
        ("AWS_SECRET_ACCESS_KEY", None, ExitCode.NO_PERMISSION, "missing: aws_secret_access_key"),
        ("AWS_REGION", "eu central", ExitCode.CONFIGURATION, "AWS_REGION is no region"),
        ("AWS_ENDPOINT_URL", "minio:9000", ExitCode.CONFIGURATION, "AWS_ENDPOINT_URL is no address"),
    ],
)
def test_a_secret_that_cannot_be_right_asks_a_person(
    results: Results, store: Store, name: str, value: str | None, code: ExitCode, sentence: str
) -> None:
    key = results.secrets / "0" / name
    key.write_text(value) if value else key.unlink()
    with pytest.raises(StageError, match=sentence) as failed:
        results.publish(TO_BUCKET, merged=results.put("merged", FILES))
    assert failed.value.code == code


def test_a_workspace_that_cannot_be_read_is_not_told_as_the_stores(
    results: Results, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(parcel: Parcel, name: str) -> Path:
        raise PermissionError(13, "Permission denied", str(parcel.folder / name))

    monkeypatch.setattr(Parcel, "checked", unreadable)
    with pytest.raises(StageError, match=r"no permission for .*config\.json") as failed:
        results.publish(TO_BUCKET, merged=results.put("merged", FILES))
    assert failed.value.reason == "PermissionDenied"
