"""The publish stage over several publications."""

import pytest

from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.publish.bucket import BucketFolder
from tests.unit.trainer.publish.parcels import FILES, Results

ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"\x02" * 5000}


def test_adapter_and_model_go_where_they_are_asked_for(results: Results) -> None:
    adapter, merged = results.put("adapter", ADAPTER), results.put("merged", FILES)
    told = results.publish(
        {"uri": "pvc://one/adapter", "what": "adapter"}, {"uri": "pvc://two/model"}, adapter=adapter, merged=merged
    )
    assert [each["digest"] for each in told] == [adapter["digest"], merged["digest"]]
    assert (results.published / "one/adapter/adapter_config.json").is_file()
    assert (results.published / "two/model/config.json").is_file()


def test_one_that_fails_does_not_keep_the_others_from_being_made(results: Results) -> None:
    (results.published / "one/taken").mkdir(parents=True)
    (results.published / "one/taken/file").touch()
    with pytest.raises(StageError, match="name another folder"):
        results.publish({"uri": "pvc://one/taken"}, {"uri": "pvc://two/model"}, merged=results.put("merged", FILES))
    assert (results.published / "two/model/config.json").is_file()


def test_what_may_succeed_by_itself_is_tried_again_before_a_person_is_asked(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    (results.published / "one/taken").mkdir(parents=True)
    (results.published / "one/taken/file").touch()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StageError) as failed:
        results.publish({"uri": "pvc://one/taken"}, {"uri": "hf://me/falcon"}, merged=results.put("merged", FILES))
    assert (failed.value.code, failed.value.reason) == (ExitCode.UNAVAILABLE, "TargetUnavailable")


def test_a_workspace_that_was_changed_is_said(results: Results) -> None:
    merged = results.put("merged", FILES) | {"digest": f"sha256:{'0' * 64}"}
    with pytest.raises(StageError, match="was the workspace changed") as refused:
        results.publish({"uri": "pvc://two/model"}, merged=merged)
    assert refused.value.code == ExitCode.NO_INPUT


def test_an_error_that_no_target_knows_does_not_keep_the_others_from_being_made(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def falls(target: BucketFolder, parcel: object, progress: object) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(BucketFolder, "receive", falls)
    with pytest.raises(StageError, match=r"s3://one/model: .*ZeroDivisionError: odd") as failed:
        results.publish({"uri": "s3://one/model"}, {"uri": "pvc://two/model"}, merged=results.put("merged", FILES))
    assert (failed.value.code, failed.value.reason) == (ExitCode.INTERNAL, "InternalError")
    assert (results.published / "two/model/config.json").is_file()
