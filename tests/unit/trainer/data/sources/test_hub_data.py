"""hf:// sources: of a data set of the Hub, the files that the Hub's own library would load."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from falcon_trainer import layout
from falcon_trainer.artifacts import read_manifest
from falcon_trainer.data.sources import Sources
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.data.sources.files import rows_of, write
from tests.unit.trainer.data.sources.runs import Run
from tests.unit.trainer.hub_server import COMMIT, Hub, serving

NAME = "acme/tickets"
CARD = """---
license: apache-2.0
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: held_out, path: data/held_out-*}
- config_name: short
  data_files: short/*.jsonl
---
# Tickets
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "repository"
    for part in ("data", "short", "raw [old]"):
        (folder / part).mkdir(parents=True)
    write(rows_of(3), folder / "data", "Parquet", stem="train-00000-of-00002")
    write(rows_of(2), folder / "data", "Parquet", stem="train-00001-of-00002")
    write(rows_of(1), folder / "data", "Parquet", stem="held_out-00000-of-00001")
    write(rows_of(1), folder / "short", "JSON Lines", stem="some")
    write(rows_of(1), folder / "raw [old]", "CSV", stem="v1")
    (folder / "README.md").write_text(CARD)
    monkeypatch.setattr(layout, "TOKEN", tmp_path / "token")
    with serving(Hub(NAME, folder, kind="dataset")) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def shown(sources: Sources) -> list[str]:
    return [sources.shown(file) for file in sources.training()]


def refusal(run: Run, uri: str) -> StageError:
    with pytest.raises(StageError) as caught:
        run.fetched(uri)
    return caught.value


def test_the_splits_that_its_readme_describes_are_fetched_and_nothing_else(run: Run, hub: Hub) -> None:
    sources = run.fetched(f"hf://{NAME}", validation="held_out")
    assert shown(sources) == ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
    assert [sources.shown(file) for file in sources.validation()] == ["data/held_out-00000-of-00001.parquet"]
    records = [record.fields for file in sources.training() for record in sources.read(file)]
    assert records == [*rows_of(3), *rows_of(2)]
    assert not [path for path in hub.asked if "short" in path or "raw" in path]
    assert f"hf://{NAME}/data/train-00000-of-00002.parquet" in sources.fingerprint()


def test_it_is_fetched_once_and_its_commit_is_kept(run: Run, hub: Hub) -> None:
    first = run.fetched(f"hf://{NAME}")
    (folder,) = run.downloads.iterdir()
    manifest = read_manifest(folder)
    assert manifest
    assert manifest.facts["commit"] == COMMIT
    hub.refusal, asked = (503, ""), len(hub.asked)
    assert run.fetched(f"hf://{NAME}").fingerprint() == first.fingerprint()
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("short", ["short/some.jsonl"]),
        ("data/held_out-00000-of-00001.parquet", ["data/held_out-00000-of-00001.parquet"]),
        ("raw [old]", ["raw [old]/v1.csv"]),
        ("raw [old]/v1.csv", ["raw [old]/v1.csv"]),
    ],
    ids=["a configuration", "a file", "a folder", "a file with brackets in its path"],
)
def test_a_part_of_it_may_be_named(run: Run, hub: Hub, path: str, files: list[str]) -> None:
    sources = run.fetched(f"hf://{NAME}@{COMMIT}/{path}")
    assert shown(sources) == files
    assert next(iter(sources.read(sources.training()[0]))).fields == rows_of(1)[0]


def test_of_files_of_several_kinds_those_of_the_most_common_one_are_fetched(run: Run, hub: Hub) -> None:
    (hub.folder / "README.md").unlink()
    for name in ("metadata.json", "data/extra.txt"):
        (hub.folder / name).write_text("{}")
    (hub.folder / "data" / "train-notes.csv").write_text("a\n1\n")
    assert shown(run.fetched(f"hf://{NAME}/data")) == [
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
    ]


def test_a_download_goes_on_where_it_stopped(run: Run, hub: Hub) -> None:
    hub.broken = "train-00001-of-00002.parquet"
    error = refusal(run, f"hf://{NAME}")
    assert (error.code, error.reason) == (ExitCode.UNAVAILABLE, "HubUnavailable")
    hub.broken, before = "", len(hub.asked)
    assert len(run.fetched(f"hf://{NAME}").training()) == 2
    assert not [path for path in hub.asked[before:] if path.endswith("train-00000-of-00002.parquet")]


def test_a_private_data_set_is_fetched_with_the_token_of_the_mounted_file(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    error = refusal(run, f"hf://{NAME}")
    assert (error.code, error.reason) == (ExitCode.NO_PERMISSION, "DataGated")
    (tmp_path / "token").write_text("hf_secret\n")
    assert len(run.fetched(f"hf://{NAME}").training()) == 2


@pytest.mark.parametrize(
    ("uri", "code", "reason", "said"),
    [
        ("hf://acme/none", ExitCode.NO_INPUT, "DataNotFound", "no data set acme/none, or shows it only to its owners"),
        (f"hf://{NAME}@v9", ExitCode.NO_INPUT, "DataNotFound", "no revision v9: check dataset.sources[0].uri"),
        (
            f"hf://{NAME}/nothing",
            ExitCode.NO_INPUT,
            "DataNotFound",
            "no file, folder or configuration 'nothing'; it has README.md, data, raw [old], short, and the "
            "configurations default, short",
        ),
    ],
    ids=["no such data set", "no such revision", "no such part"],
)
def test_what_is_not_there_is_told(run: Run, hub: Hub, uri: str, code: ExitCode, reason: str, said: str) -> None:
    error = refusal(run, uri)
    assert (error.code, error.reason) == (code, reason)
    assert said in error.message


def test_several_configurations_without_a_default_are_told_with_how_to_name_one(run: Run, hub: Hub) -> None:
    (hub.folder / "README.md").write_text(CARD.replace("default", "long"))
    error = refusal(run, f"hf://{NAME}")
    assert error.code == ExitCode.NO_INPUT
    assert "it has the configurations long, short: name one, behind a /" in error.message


def test_a_hub_that_cannot_be_reached_is_tried_again(run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refusal(run, f"hf://{NAME}")
    assert error.outcome().retryable
    assert "put the data set on a claim" in error.message


def test_a_workspace_without_room_is_told_before_anything_is_fetched(
    run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(run.mounts)
    monkeypatch.setattr("falcon_trainer.data.sources.place.shutil.disk_usage", lambda path: usage._replace(free=1000))
    error = refusal(run, f"hf://{NAME}")
    assert (error.code, error.reason) == (ExitCode.CANNOT_WRITE, "WorkspaceTooSmall")
    assert not [path for path in hub.asked if path.endswith(".parquet")]
