"""Finished artefacts of a workspace, to be published."""

from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer.artifacts import as_artifact, draft_beside, publish
from falcon_trainer.config import RunConfig
from falcon_trainer.publish.stage import publish as publish_stage
from tests.unit.trainer.workshop import Workshop

FILES = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": bytes(range(256)) * 64,
    "model-00002-of-00002.safetensors": b"\x01" * 70_000,
    "original/notes.txt": b"in a folder",
}


class Results(Workshop):
    """A run with a finished adapter and a finished merged model."""

    @property
    def published(self) -> Path:
        """Where claims are mounted."""
        return self.root / "published"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    def put(self, what: str, files: dict[str, bytes]) -> dict[str, JsonValue]:
        """A finished artefact; returns what the status says of it."""
        place = self.layout.adapter if what == "adapter" else self.layout.merged
        draft = draft_beside(place("new"))
        for name, content in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(content)
        folder, manifest = publish(draft, place, kind=what, facts={})
        return as_artifact(folder, manifest, self.layout.workspace).to_wire()

    def secret(self, index: int, **keys: str) -> None:
        """Mounts a Secret for the publication with this place in the list, with Kubernetes' own entries beside it."""
        folder = self.secrets / str(index)
        (folder / "..data").mkdir(parents=True)
        for name, value in keys.items():
            (folder / name).write_text(f"{value}\n")

    def publish(self, *publications: dict[str, Any], **results: Any) -> list[dict[str, Any]]:
        """Runs the stage; returns what it tells of each publication."""
        config = RunConfig.model_validate(self.config().to_wire() | {"publish": list(publications)} | results)
        told: Any = publish_stage(config, self.beats("publish"), self.layout)["published"]
        return list(told)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
