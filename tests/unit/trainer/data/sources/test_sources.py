"""What is trained on and what is held out, for sources that are mounted."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from falcon_trainer.data.sources import Sources
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.data.sources.runs import Run


@pytest.fixture
def claim(run: Run) -> Path:
    folder = run.mounts / "data"
    folder.mkdir()
    return folder


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"text": "{name}"}}\n')


def names(files: Sequence[Path], folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files]


def refusal(act: Callable[[], Any]) -> StageError:
    with pytest.raises(StageError) as caught:
        act()
    return caught.value


def test_files_come_in_the_order_of_the_spec_and_by_name_within_a_folder(run: Run, claim: Path) -> None:
    put(claim, "b/2.jsonl", "b/1.jsonl", "a.jsonl", "b/deep/er/0.csv")
    sources = run.fetched("pvc://data/b", "pvc://data/a.jsonl")
    assert names(sources.training(), claim) == ["b/1.jsonl", "b/2.jsonl", "b/deep/er/0.csv", "a.jsonl"]
    assert sources.validation() == []


def test_a_folder_of_several_kinds_is_read_whole(run: Run, claim: Path) -> None:
    put(claim, "a.csv", "b.jsonl", "c.parquet", "notes.txt", ".hidden.jsonl", "__pycache__/x.json")
    assert names(run.fetched("pvc://data").training(), claim) == ["a.csv", "b.jsonl", "c.parquet"]


def test_where_there_are_splits_train_is_trained_on_and_validation_only_on_request(run: Run, claim: Path) -> None:
    put(claim, "train.jsonl", "dev.jsonl", "test.jsonl")
    plain = run.fetched("pvc://data")
    assert (names(plain.training(), claim), plain.validation()) == (["train.jsonl"], [])
    held_out = run.fetched("pvc://data", validation="validation")
    assert names(held_out.training(), claim) == ["train.jsonl"]
    assert names(held_out.validation(), claim) == ["dev.jsonl"]
    assert set(held_out.fingerprint()) == {"data/train.jsonl", "data/dev.jsonl"}


def test_a_split_that_is_named_is_taken(run: Run, claim: Path) -> None:
    put(claim, "train.jsonl", "test.jsonl")
    sources = run.fetched({"uri": "pvc://data", "split": "test"})
    assert names(sources.training(), claim) == ["test.jsonl"]


def test_a_file_may_be_named_as_the_held_out_split(run: Run, claim: Path) -> None:
    put(claim, "a.jsonl", "b.jsonl")
    sources = run.fetched("pvc://data/a.jsonl", {"uri": "pvc://data/b.jsonl", "split": "test"}, validation="test")
    assert names(sources.training(), claim) == ["a.jsonl"]
    assert names(sources.validation(), claim) == ["b.jsonl"]


@pytest.mark.parametrize(
    ("files", "uris", "validation", "said"),
    [
        pytest.param(
            ["validation.jsonl", "test.jsonl"],
            ["pvc://data"],
            None,
            "it has no split 'train'; it has validation, test. Name one",
            id="splits without train",
        ),
        pytest.param(
            ["train.jsonl"],
            [{"uri": "pvc://data", "split": "dolly"}],
            None,
            "no split 'dolly'; it has train",
            id="a split that is not there",
        ),
        pytest.param(
            ["train.jsonl", "x/a.jsonl"],
            ["pvc://data", "pvc://data/x/a.jsonl"],
            "validation",
            "No source has the split 'validation' of dataset.validation.split (pvc://data has train; "
            "pvc://data/x/a.jsonl has no splits, being one file)",
            id="nothing to validate on",
        ),
        pytest.param(
            ["a.jsonl"],
            [{"uri": "pvc://data/a.jsonl", "split": "test"}],
            "test",
            "No file is left to train on",
            id="nothing to train on",
        ),
        pytest.param(["a.txt"], ["pvc://data"], None, "holds no file of records (.json, ", id="no records"),
        pytest.param([], ["pvc://data/x/y.jsonl"], None, "there is no 'x' in", id="no such folder"),
    ],
)
def test_what_is_missing_is_told(
    run: Run, claim: Path, files: list[str], uris: list[Any], validation: str | None, said: str
) -> None:
    put(claim, *files)

    def ask() -> None:
        sources = run.fetched(*uris, validation=validation)
        sources.training()
        sources.validation()

    error = refusal(ask)
    assert (error.code, error.reason) == (ExitCode.NO_INPUT, "DataNotFound")
    assert said in error.message


def test_a_file_that_is_trained_on_and_held_out_is_refused(run: Run, claim: Path) -> None:
    put(claim, "d/train.jsonl", "d/test.jsonl")
    error = refusal(run.fetched("pvc://data/d", "pvc://data/d/test.jsonl", validation="test").training)
    assert (error.code, error.reason) == (ExitCode.CONFIGURATION, "DataOverlaps")
    assert "test.jsonl" in error.message


def test_an_address_that_is_none_is_told_with_its_field(run: Run) -> None:
    error = refusal(lambda: run.sources("pvc://data/a.jsonl", "s3://x"))
    assert (error.code, error.reason) == (ExitCode.CONFIGURATION, "SourceNotUsable")
    assert error.message.startswith("dataset.sources[1].uri: 's3://x' cannot be used: 'x' is no name of a bucket")


def mounted_config_map(folder: Path, **data: str) -> None:
    """As the kubelet lays a ConfigMap: the keys are links into a hidden folder, which is swapped on a change."""
    content = folder / "..2026_11_24_10_00_00.1"
    content.mkdir(parents=True)
    for key, value in data.items():
        (content / key).write_text(value)
        (folder / key).symlink_to(Path("..data") / key)
    (folder / "..data").symlink_to(content.name)


def test_a_config_map_is_read_whole_or_by_a_key(run: Run) -> None:
    folder = run.mounts / "_configmaps" / "records"
    mounted_config_map(folder, **{"a.jsonl": '{"text": "a"}', "b.jsonl": '{"text": "b"}', "note": "x"})
    whole = run.fetched("configmap://records")
    assert names(whole.training(), folder) == ["a.jsonl", "b.jsonl"]
    assert set(whole.fingerprint()) == {"_configmaps/records/a.jsonl", "_configmaps/records/b.jsonl"}
    assert names(run.fetched("configmap://records/b.jsonl").training(), folder) == ["b.jsonl"]
    error = refusal(lambda: run.fetched("configmap://records/c.jsonl"))
    assert "there is no 'c.jsonl' in" in error.message
    assert "(there are a.jsonl, b.jsonl, note)" in error.message


def test_a_claim_may_have_the_name_of_a_config_map(run: Run) -> None:
    mounted_config_map(run.mounts / "_configmaps" / "records", **{"a.jsonl": "{}"})
    put(run.mounts / "records", "a.jsonl")
    assert len(run.fetched("configmap://records/a.jsonl", "pvc://records/a.jsonl").fingerprint()) == 2


def test_the_fingerprint_is_the_content_of_each_file(run: Run, claim: Path) -> None:
    put(claim, "a.jsonl")
    digest = hashlib.sha256((claim / "a.jsonl").read_bytes()).hexdigest()
    assert run.fetched("pvc://data/a.jsonl").fingerprint() == {"data/a.jsonl": digest}


def test_places_tell_files_of_one_name_apart(run: Run, claim: Path) -> None:
    put(claim, "x/a.jsonl", "y/a.jsonl", "y/b/a.jsonl", "y/c.jsonl")

    def shown(sources: Sources) -> list[str]:
        return [str(record.where) for file in sources.training() for record in sources.read(file)]

    assert shown(run.fetched("pvc://data/y")) == ["a.jsonl line 1", "b/a.jsonl line 1", "c.jsonl line 1"]
    assert shown(run.fetched("pvc://data/x/a.jsonl", "pvc://data/y/"))[:2] == [
        "pvc://data/x/a.jsonl line 1",
        "pvc://data/y/a.jsonl line 1",
    ]


def test_the_log_says_what_is_used_of_each_source(run: Run, claim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(claim, "train.jsonl", "validation.jsonl", "more.jsonl")
    run.fetched("pvc://data", validation="validation")
    assert capsys.readouterr().out == (
        "pvc://data: 1 file to train on (train.jsonl); 1 file to validate on (validation.jsonl); "
        "1 file of no split, left out (more.jsonl).\n"
    )
