"""Results on another claim."""

import os
import shutil
from pathlib import Path

import pytest

from falcon_trainer.artifacts import read_manifest
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.publish.parcels import FILES, Results, contents

TO_CLAIM = {"uri": "pvc://models/team/falcon"}


@pytest.fixture
def target(results: Results) -> Path:
    (results.published / "models").mkdir()
    return results.published / "models" / "team" / "falcon"


def test_a_model_is_copied_with_its_manifest(results: Results, target: Path) -> None:
    merged = results.put("merged", FILES)
    (told,) = results.publish(TO_CLAIM, merged=merged)
    assert told == {"uri": TO_CLAIM["uri"], "what": "merged", "digest": merged["digest"], "bytes": merged["bytes"]}
    assert contents(target) == contents(results.layout.workspace / str(merged["path"]))
    assert [path.name for path in target.parent.iterdir()] == ["falcon"], "nothing is left beside it"


def test_a_second_run_of_the_stage_copies_nothing(results: Results, target: Path) -> None:
    merged = results.put("merged", FILES)
    first = results.publish(TO_CLAIM, merged=merged)
    written = (target / "config.json").stat().st_ino
    assert results.publish(TO_CLAIM, merged=merged) == first
    assert (target / "config.json").stat().st_ino == written


def test_a_copy_goes_on_where_it_stopped(results: Results, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = results.put("merged", FILES)
    copied: list[str] = []
    copy = shutil.copyfile

    def dies_at_the_third(source: Path, to: Path) -> Path:
        if len(copied) == 2:
            Path(to).write_bytes(b"half")
            raise KeyboardInterrupt
        copied.append(Path(source).name)
        return copy(source, to)

    monkeypatch.setattr(shutil, "copyfile", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        results.publish(TO_CLAIM, merged=merged)
    assert not target.exists(), "half a copy must not stand under its name"
    again: list[str] = []

    def notes(source: Path, to: Path) -> Path:
        again.append(Path(source).name)
        return copy(source, to)

    monkeypatch.setattr(shutil, "copyfile", notes)
    results.publish(TO_CLAIM, merged=merged)
    assert not set(again) & set(copied)
    assert contents(target) == contents(results.layout.workspace / str(merged["path"]))


def test_a_newer_result_replaces_an_older_one_as_a_whole(results: Results, target: Path) -> None:
    results.publish(TO_CLAIM, merged=results.put("merged", FILES | {"old.txt": b"old"}))
    newer = results.put("merged", FILES)
    results.publish(TO_CLAIM, merged=newer)
    assert not (target / "old.txt").exists()
    manifest = read_manifest(target)
    assert manifest
    assert f"sha256:{manifest.digest}" == newer["digest"]
    assert [path.name for path in target.parent.iterdir()] == ["falcon"]


def test_a_damaged_copy_is_made_anew(results: Results, target: Path) -> None:
    merged = results.put("merged", FILES)
    results.publish(TO_CLAIM, merged=merged)
    (target / "config.json").write_bytes(b"[]")
    results.publish(TO_CLAIM, merged=merged)
    assert contents(target) == contents(results.layout.workspace / str(merged["path"]))


def test_what_somebody_else_put_there_is_left_alone(results: Results, target: Path) -> None:
    target.mkdir(parents=True)
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(StageError, match="no result of this product") as refused:
        results.publish(TO_CLAIM, merged=results.put("merged", FILES))
    assert refused.value.code == ExitCode.CANNOT_WRITE
    assert contents(target) == {"thesis.tex": b"years of work"}


def test_a_result_that_was_damaged_in_the_workspace_is_not_copied(results: Results, target: Path) -> None:
    merged = results.put("merged", FILES)
    (results.layout.workspace / str(merged["path"]) / "config.json").write_bytes(b"[]")
    with pytest.raises(StageError, match=r"config\.json does not have the contents") as refused:
        results.publish(TO_CLAIM, merged=merged)
    assert refused.value.code == ExitCode.DATA
    assert not target.exists()


def test_a_full_claim_is_said(results: Results, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, to: Path) -> Path:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StageError, match="is full") as refused:
        results.publish(TO_CLAIM, merged=results.put("merged", FILES))
    assert (refused.value.code, refused.value.reason) == (ExitCode.CANNOT_WRITE, "TargetFull")


def test_storage_that_keeps_something_else_is_found_out(
    results: Results, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "copyfile", lambda source, to: Path(to).write_bytes(b"?" * Path(source).stat().st_size))
    with pytest.raises(StageError, match="was not written as it was read"):
        results.publish(TO_CLAIM, merged=results.put("merged", FILES))
    assert not target.exists()


def test_drafts_of_a_neighbour_are_left_alone(results: Results, target: Path) -> None:
    target.parent.mkdir()
    digest = "0123456789abcdef"
    theirs = [f".falcon.v2.{digest}.draft", ".falcon.notes.draft", f".falcon-{digest}.draft"]
    for name in (*theirs, f".falcon.{digest}.draft"):
        (target.parent / name).mkdir()
    results.publish(TO_CLAIM, merged=results.put("merged", FILES))
    assert {path.name for path in target.parent.iterdir()} == {"falcon", *theirs}
