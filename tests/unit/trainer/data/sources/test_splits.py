"""Splits of a folder are those that `datasets.load_dataset` finds in it: the library itself is the measure."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from datasets import load_dataset_builder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falcon_trainer.data.sources.splits import (
    NoSuchSplitsError,
    configurations,
    default_configuration,
    of_one_kind,
    splits_of,
)


def by_the_library(folder: Path, configuration: str | None = None) -> dict[str, list[str]]:
    # As a set: it lists a file twice that two of its patterns match, and would train on it twice.
    builder = load_dataset_builder(str(folder), configuration, cache_dir=str(folder.parent / "cache"))
    files = builder.config.data_files or {}
    return {
        str(split): sorted({Path(path).relative_to(folder).as_posix() for path in paths})
        for split, paths in files.items()
    }


def by_us(folder: Path, names: Sequence[str], configuration: str | None = None) -> dict[str, list[str]]:
    card = folder / "README.md"
    described = configurations(card.read_text() if card.exists() else "")
    chosen = described.get(configuration or default_configuration(described) or "")
    return {split: sorted(of_one_kind(found)) for split, found in splits_of(names, chosen).items()}


def laid(folder: Path, names: Sequence[str], card: str = "") -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "x"}\n')
    if card:
        (folder / "README.md").write_text(f"---\n{card}\n---\n# A data set\n")
    return folder.resolve()


LAYOUTS: dict[str, list[str]] = {
    "files of any name": ["a.jsonl", "b.jsonl"],
    "splits in the names of files": ["train.jsonl", "test.jsonl", "dev.jsonl"],
    "splits in the names of folders": ["data/train/0.jsonl", "data/validation/0.jsonl", "data/train/1.jsonl"],
    "shards with splits of their own names": [
        "data/train_sft-00000-of-00002.parquet",
        "data/train_sft-00001-of-00002.parquet",
        "data/test_gen-00000-of-00001.parquet",
    ],
    "files of several kinds": ["train.csv", "a/train.jsonl", "b/train.jsonl"],
    "compressed files": ["train.jsonl.gz", "eval.jsonl.gz"],
    "hidden and special folders": ["a.jsonl", ".git/b.jsonl", "__pycache__/c.jsonl", ".hidden.jsonl"],
    "words of splits inside other words": ["constraint.jsonl", "latest.jsonl"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_they_are_the_librarys(tmp_path: Path, layout: str) -> None:
    names = LAYOUTS[layout]
    folder = laid(tmp_path / "repository", names)
    assert by_us(folder, names) == by_the_library(folder)


WORDS = st.sampled_from(["train", "test", "validation", "dev", "eval", "data", "a", "train-1", "my_test", "x.train"])
NAMES = st.builds(lambda parts, kind: "/".join(parts) + kind, st.lists(WORDS, min_size=1, max_size=3), st.just(".csv"))


@given(st.lists(NAMES, min_size=1, max_size=5, unique=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=12)
def test_they_are_the_librarys_for_any_tree_of_names(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = laid(tmp_path_factory.mktemp("tree") / "repository", names)
    assert by_us(folder, names) == by_the_library(folder)


CONFIGURED = """configs:
- config_name: main
  default: true
  data_files:
  - split: train
    path: [main/first.jsonl, "main/more-*.jsonl"]
  - split: held_out
    path: other/*
- config_name: extra
  data_dir: extra"""
CONFIGURED_NAMES = ["main/first.jsonl", "main/more-1.jsonl", "other/a.jsonl", "extra/train.jsonl", "extra/test.jsonl"]


@pytest.mark.parametrize("configuration", [None, "main", "extra"])
def test_they_are_the_librarys_where_a_readme_describes_them(tmp_path: Path, configuration: str | None) -> None:
    folder = laid(tmp_path / "repository", CONFIGURED_NAMES, CONFIGURED)
    assert by_us(folder, CONFIGURED_NAMES, configuration) == by_the_library(folder, configuration)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        pytest.param("configs: [{config_name: a}, {config_name: b}]", "configurations a, b: name one", id="no default"),
        pytest.param("configs: {a: b}", "the YAML in its README.md cannot be used", id="no list"),
        pytest.param("configs: [", "the YAML in its README.md cannot be used", id="no YAML"),
        pytest.param(
            "configs: [{config_name: a, data_files: missing.csv}]", "'missing.csv', which is not there", id="no file"
        ),
        pytest.param(
            "configs: [{config_name: a, data_files: /etc/passwd}]", "'/etc/passwd', which is outside", id="absolute"
        ),
        pytest.param(
            "configs: [{config_name: a, data_files: ../../x}]", "'../../x', which is outside", id="climbing out"
        ),
        pytest.param(
            "configs: [{config_name: a, data_files: 'https://example.com/x.csv'}]", "which is outside", id="elsewhere"
        ),
        pytest.param("configs: [{config_name: a, data_dir: ../..}]", "'../..', which is outside", id="a folder above"),
    ],
)
def test_a_readme_that_cannot_be_followed_is_told(card: str, said: str) -> None:
    def follow() -> None:
        described = configurations(f"---\n{card}\n---\n")
        splits_of(["a.csv"], described.get(default_configuration(described) or ""))

    with pytest.raises(NoSuchSplitsError) as caught:
        follow()
    assert said in str(caught.value)


def test_a_readme_without_metadata_describes_nothing() -> None:
    assert configurations("# Records\n\n---\nconfigs: [\n---\n") == {}


def test_files_of_no_known_kind_are_told_with_the_way_to_a_parquet_copy() -> None:
    with pytest.raises(NoSuchSplitsError, match="refs/convert/parquet"):
        of_one_kind(("a.txt", "b.txt"))


def test_names_that_climb_out_of_the_listing_are_no_files_of_it() -> None:
    names = ["../climbed.csv", "/absolute.csv", "a//b.csv", "plain.csv"]
    assert splits_of(names) == {"train": ("plain.csv",)}
    assert not Path("/absolute.csv").exists()
