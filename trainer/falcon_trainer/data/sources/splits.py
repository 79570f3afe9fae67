"""Which files of a folder belong to which split, found by the functions of the Hub's own `datasets` library.

They look at files, so they are shown an empty file for each name of a listing: a folder on a slow volume, a bucket and
a repository are listed once, and then treated alike.
"""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from falcon_trainer.data.sources import kinds

MODULES: Mapping[kinds.Format, str] = {
    "json": "json",
    "csv": "csv",
    "tsv": "csv",
    "parquet": "parquet",
    "arrow": "arrow",
}
"""format → the library's name of it"""
CARD = "README.md"
Splits = Mapping[str, tuple[str, ...]]
"""split → names of its files, in their order"""


class NoSuchSplitsError(ValueError):
    """A listing in which no splits can be found; the text says why, as a clause."""


def configurations(card: str) -> dict[str, dict[str, Any]]:
    """The configurations (subsets) that the YAML at the head of a README.md describes.

    Raises NoSuchSplitsError where it cannot be understood.
    """
    import yaml
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    if not card.lstrip("\ufeff").startswith("---"):
        return {}
    try:
        # A repository's metadata may be wrong in fields that nobody asks for here.
        metadata = DatasetCard(card, ignore_metadata_errors=True).data
        return dict(MetadataConfigs.from_dataset_card_data(metadata))
    except (ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError) as error:
        raise NoSuchSplitsError(f"the YAML in its README.md cannot be used ({_first_line(error)})") from error


def default_configuration(found: Mapping[str, dict[str, Any]]) -> str | None:
    """The configuration that is meant where none is named; None where there is none at all.

    Raises NoSuchSplitsError where there are several and none is the default.
    """
    from datasets.utils.metadata import MetadataConfigs

    try:
        name = MetadataConfigs(found).get_default_config_name()
    except ValueError as error:
        raise NoSuchSplitsError(_first_line(error)) from error
    if found and name is None:
        raise NoSuchSplitsError(f"it has the configurations {', '.join(sorted(found))}: name one, behind a /")
    return str(name) if name else None


def splits_of(names: Iterable[str], configuration: Mapping[str, Any] | None = None) -> Splits:
    """The splits of a listing (names relative to its folder), by a configuration or by the names of files and folders.

    A listing without any sign of splits is one split, `train`. Raises NoSuchSplitsError.
    """
    from datasets.data_files import get_data_patterns, sanitize_patterns

    described = configuration or {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name in filter(_stays_below, names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        base = root / _inside(str(described.get("data_dir") or ""))
        try:
            patterns = (
                sanitize_patterns(described["data_files"])
                if described.get("data_files") is not None
                else get_data_patterns(str(base))
            )
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise NoSuchSplitsError(_first_line(error)) from error
        return {str(split): _resolved(listed, base, root) for split, listed in patterns.items()}


def _resolved(patterns: Iterable[str], base: Path, root: Path) -> tuple[str, ...]:
    from datasets.data_files import contains_wildcards, resolve_pattern

    found: dict[str, None] = {}
    for pattern in patterns:
        try:
            paths = resolve_pattern(_inside(pattern), str(base))
        except FileNotFoundError:
            if not contains_wildcards(pattern):
                raise NoSuchSplitsError(f"its README.md names {pattern!r}, which is not there") from None
            continue
        found |= dict.fromkeys(Path(path).relative_to(root).as_posix() for path in paths)
    return tuple(found)


def _stays_below(name: str) -> bool:
    """Whether a name of a listing is a plain path: the keys of a bucket may be anything, also `../x`."""
    return not {"", ".", ".."} & set(name.split("/"))


def _inside(path: str) -> str:
    """A path or pattern of a README.md, whose author must not make the stage look at the pod's files or other hosts."""
    if path.startswith(("/", "~")) or ".." in Path(path).parts or ":" in path:
        raise NoSuchSplitsError(f"its README.md names {path!r}, which is outside of it")
    return path


def of_one_kind(names: tuple[str, ...]) -> tuple[str, ...]:
    """Of the files of a split, those that the library would load: the ones of the most common kind.

    Raises NoSuchSplitsError where that is none of ours.
    """
    from datasets.data_files import DataFilesList
    from datasets.load import infer_module_for_data_files_list

    module, _ = infer_module_for_data_files_list(DataFilesList(list(names), []))
    found = tuple(name for name in names if (kind := kinds.named(name)) and MODULES[kind.format] == module)
    if names and not found:
        raise NoSuchSplitsError(
            f"most of its files are of no kind that is read here, such as {names[0]}; known are {kinds.KNOWN}. Where "
            "the Hub made a Parquet copy, name its revision: hf://OWNER/NAME@refs/convert/parquet"
        )
    return found


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
