"""The sources of a run, as the prepare pod has them."""

from pathlib import Path

from falcon_trainer.config import Dataset
from falcon_trainer.data.sources import Sources


class Run:
    """Sources of a run whose claims lie in `mounts` and whose downloads go to `downloads`."""

    def __init__(self, mounts: Path, downloads: Path) -> None:
        self.mounts, self.downloads = mounts, downloads

    def sources(self, *uris: str | dict[str, str], validation: str | None = None) -> Sources:
        """A data set of these sources, as a pod that starts anew sees it."""
        spec = {
            "sources": [uri if isinstance(uri, dict) else {"uri": uri} for uri in uris],
            **({"validation": {"split": validation}} if validation else {}),
        }
        return Sources(Dataset.model_validate(spec), self.downloads)

    def fetched(self, *uris: str | dict[str, str], validation: str | None = None) -> Sources:
        sources = self.sources(*uris, validation=validation)
        sources.fetch()
        return sources
