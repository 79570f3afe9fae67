"""One merge, from the checked inputs to the published folder."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from falcon_trainer.artifacts import Manifest, publish, read_manifest
from falcon_trainer.beats import Beats
from falcon_trainer.config import RunConfig
from falcon_trainer.data.contents import PROMPTS
from falcon_trainer.data.tokenization import stored_template
from falcon_trainer.layout import MANIFEST, RunLayout
from falcon_trainer.merge.card import card
from falcon_trainer.merge.draft import Draft
from falcon_trainer.merge.shards import Recipe, merge_shards
from falcon_trainer.merge.update import Update
from falcon_trainer.merge.verify import check_logits, check_tensors, fits_in_memory, logit_difference
from falcon_trainer.model.lora import ADAPTER_FILE
from falcon_trainer.model.source import model_folder
from falcon_trainer.model.weights import TORCH_NAMES, Weights
from falcon_trainer.outcome import StageError
from falcon_trainer.wire import memory_bytes

KIND = "merged"
CARD_FILE = "README.md"
OF_ADAPTER_ALONE = (ADAPTER_FILE, "adapter_config.json", CARD_FILE, MANIFEST)
OF_BASE = ("config.json", "generation_config.json", "LICENSE", "LICENSE.txt")
BEAT_SECONDS = 1.0


@dataclass(frozen=True)
class Adapter:
    """The accepted adapter, checked."""

    folder: Path
    facts: Mapping[str, JsonValue]


class Making:
    """Makes the merged folder of a run."""

    def __init__(self, config: RunConfig, beats: Beats, layout: RunLayout, base: Weights, adapter: Adapter) -> None:
        self._config, self._beats, self._layout = config, beats, layout
        self._base_folder, self._adapter = model_folder(config.model, layout.workspace), adapter
        update = Update(Weights([adapter.folder / ADAPTER_FILE]), config.lora.scale)
        self._recipe = Recipe(base, update, config.merge.dtype, memory_bytes(config.merge.memory))

    def run(self, inputs: dict[str, JsonValue]) -> tuple[Path, Manifest]:
        """Merges, verifies and publishes; goes on where an earlier pod with the same inputs stopped."""
        draft = Draft.of(self._layout, {**inputs, "base": state_of(self._recipe.base)})
        known = merge_shards(self._recipe, draft, self._progress())
        self._write_beside(draft.model)
        self._beats.update("check")
        try:
            facts: dict[str, JsonValue] = {"inputs": inputs, "merge": self._verify(draft.model)}
        except StageError:
            draft.remove()  # to be merged anew, not to be found wrong again
            raise
        published = publish(draft.model, self._layout.merged, kind=KIND, facts=facts, known=known)
        draft.remove()
        return published

    def _progress(self) -> Callable[[int], None]:
        """Beats with the bytes of the base that are done, once a second."""
        total, done, told = max(self._recipe.base.bytes, 1), 0, 0.0

        def progress(count: int) -> None:
            nonlocal done, told
            done = min(done + count, total)
            if (now := time.monotonic()) - told >= BEAT_SECONDS or done == total:
                told, share = now, f"{done / total:.0%} of bytes"
                self._beats.update("merge", step=done >> 20, total_steps=max(total >> 20, 1), message=share)

        return progress

    def _write_beside(self, folder: Path) -> None:
        """Everything but the weights: configuration of the base, tokenizer and chat template of the adapter, card."""
        for name in OF_BASE:
            if (self._base_folder / name).is_file():
                shutil.copyfile(self._base_folder / name, folder / name)
        for path in sorted(self._adapter.folder.iterdir()):
            if path.is_file() and path.name not in OF_ADAPTER_ALONE:
                shutil.copyfile(path, folder / path.name)
        if self._config.merge.dtype != "auto":
            _set_dtype(folder / "config.json", self._config.merge.dtype)
        (folder / CARD_FILE).write_text(self._card(), encoding="utf-8")

    def _card(self) -> str:
        data = read_manifest(self._layout.data)
        figures = data.facts.get("figures") if data else None
        template = stored_template(self._layout.data) is not None
        figures = figures if isinstance(figures, dict) else {}
        return card(self._config, self._adapter.facts, figures, template=template)

    def _verify(self, folder: Path) -> dict[str, JsonValue]:
        base, update = self._recipe.base, self._recipe.update
        merged = Weights.of(folder)
        changed = check_tensors(base, merged, update)
        facts: dict[str, JsonValue] = {"dtype": self._config.merge.dtype, "tensors": len(merged.tensors)}
        facts["changedTensors"] = len(changed)
        if not fits_in_memory(merged.parameters):
            print("The model does not fit in memory: its logits are not compared, its tensors were.", flush=True)
            return facts
        prompts = [sample["prompt"] for sample in json.loads((self._layout.data / PROMPTS).read_text())]
        difference = logit_difference(self._base_folder, self._adapter.folder, folder, prompts)
        check_logits(difference, TORCH_NAMES[merged.tensors[changed[0]].dtype])
        return facts | {"logitDifference": f"{difference:.2e}"}


def state_of(base: Weights) -> JsonValue:
    """Size and time of change (ns) of the base's files: shards made of other ones do not count."""
    found = [(file.name, file.stat()) for file in base.files]
    return {name: [status.st_size, status.st_mtime_ns] for name, status in found}


def _set_dtype(file: Path, dtype: str) -> None:
    fields: dict[str, JsonValue] = json.loads(file.read_text())
    fields.pop("torch_dtype", None)
    file.write_text(json.dumps(fields | {"dtype": dtype}, indent=2))
