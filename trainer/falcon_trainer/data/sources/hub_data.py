"""hf:// sources: data sets of the Hub, of which only the files of the wanted splits are fetched."""

import shutil
from glob import escape
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer import hub
from falcon_trainer.data.sources.choosing import Chosen, Wanted, choose, records_among, single
from falcon_trainer.data.sources.fetching import room
from falcon_trainer.data.sources.place import FILES, Remote, require_space
from falcon_trainer.data.sources.splits import (
    CARD,
    NoSuchSplitsError,
    Splits,
    configurations,
    default_configuration,
    of_one_kind,
    splits_of,
)
from falcon_trainer.hub import Repository, explained
from falcon_trainer.uris import hub_data

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
"""What the library would look into; there are only names to look at."""


class HubData(Remote):
    """A data set, a configuration (subset), a folder or a file of it."""

    def __init__(self, wanted: Wanted, downloads: Path, field: str) -> None:
        super().__init__(wanted, downloads)
        self._named = hub_data(wanted.uri)
        self._repository = Repository(
            "Data", self._named.name, self._named.revision or "main", field=field, revision_field=field
        )

    def download(self, folder: Path) -> tuple[Chosen, dict[str, JsonValue]]:
        """As Remote.download; huggingface_hub itself goes on where it stopped."""
        with explained(self._repository), room(self.wanted):
            info = hub.api().dataset_info(
                self._named.name, revision=self._repository.revision, files_metadata=True, timeout=hub.TIMEOUT
            )
            commit, sizes = str(info.sha), {file.rfilename: file.size or 0 for file in info.siblings or []}
            chosen = self._choose(folder, commit, sizes)
            present = {name for name in chosen.files if (folder / FILES / name).is_file()}
            require_space(folder, [sizes[name] for name in chosen.files if name not in present], self.wanted)
            self._fetch(folder, commit, chosen.files)
        shutil.rmtree(folder / FILES / ".cache", ignore_errors=True)
        return chosen, {"uri": self.wanted.uri, "commit": commit}

    def _fetch(self, folder: Path, commit: str, names: tuple[str, ...]) -> None:
        hub.api().snapshot_download(
            self._named.name,
            repo_type="dataset",
            revision=commit,
            local_dir=folder / FILES,
            allow_patterns=[escape(name) for name in names],
            etag_timeout=hub.TIMEOUT,
        )

    def _choose(self, folder: Path, commit: str, sizes: dict[str, int]) -> Chosen:
        if self._named.path in sizes:
            return single(self._named.path, self.wanted)
        card = ""
        if CARD in sizes:
            self._fetch(folder, commit, (CARD,))
            card = (folder / FILES / CARD).read_text(encoding="utf-8", errors="replace")
        try:
            splits = {split: of_one_kind(names) for split, names in self._splits(card, sizes).items()}
        except NoSuchSplitsError as error:
            raise self.wanted.missing(str(error)) from error
        return choose(splits, records_among(sizes), self.wanted)

    def _splits(self, card: str, sizes: dict[str, int]) -> Splits:
        names = [name for name in sizes if not name.endswith(ARCHIVES)]
        path, described = self._named.path, configurations(card)
        if not path:
            return splits_of(names, described.get(default_configuration(described) or ""))
        if path in described:
            return splits_of(names, described[path])
        below = [name.removeprefix(f"{path}/") for name in names if name.startswith(f"{path}/")]
        if not below:
            raise NoSuchSplitsError(_nothing_at(path, names, described))
        return {split: tuple(f"{path}/{name}" for name in found) for split, found in splits_of(below).items()}


def _nothing_at(path: str, names: list[str], described: dict[str, Any]) -> str:
    beside = sorted({name.partition("/")[0] for name in names if not name.startswith(".")})[:10]
    subsets = f", and the configurations {', '.join(sorted(described)[:10])}" if described else ""
    return f"it has no file, folder or configuration {path!r}; it has {', '.join(beside)}{subsets}"
