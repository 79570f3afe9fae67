"""The prepare stage: records are checked, then tokenized and packed; the model is checked, then fetched.

Cheap checks come first, so that a wrong field in line 3 is told in seconds and not after hours of download.
"""

import json
import shutil
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from falcon_trainer.artifacts import draft_beside, problem, publish, read_manifest, remove_drafts
from falcon_trainer.beats import Beats
from falcon_trainer.config import Dataset, RunConfig
from falcon_trainer.data.formats import Document, Sample
from falcon_trainer.data.packing import one_each, pack
from falcon_trainer.data.records import Findings, Records
from falcon_trainer.data.sources import Where, fingerprint
from falcon_trainer.data.store import DocumentWriter, write_plan
from falcon_trainer.data.tokenization import TEMPLATE, Encoder, Tokens, load_tokenizer
from falcon_trainer.identity import claim
from falcon_trainer.layout import RunLayout
from falcon_trainer.model import source
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train.batching import accumulation_steps, total_steps
from falcon_trainer.wire import decimal_text

KIND = "dataset"
PROMPTS = "prompts.json"
FALCON_VOCABULARY = 65024
"""FalconConfig's default, where a config.json says nothing."""
SAMPLES = 3
"""Records that are logged and kept as prompts for the check of the merged model."""


def prepare(config: RunConfig, beats: Beats, layout: RunLayout) -> dict[str, JsonValue]:
    """Prepares data and model; a second call finds both and reports the same. Raises StageError."""
    beats.update("start")
    accumulation_steps(config.training, config.gang.world_size)
    identity = claim(config, layout)
    sources = fingerprint(config.dataset)
    dataset = _standing(layout, identity, sources)
    if dataset and (model := source.remembered(config.model, layout, identity)):
        return {"dataset": dataset, "model": model}
    records = None if dataset else Records(config.dataset)
    beats.update("data")
    findings = records.check() if records else None
    located = source.locate(config.model, config.run, layout.workspace)
    if records and findings:
        facts: dict[str, JsonValue] = {"identity": identity, "sources": {**sources}}
        dataset = _write(config, layout, records, findings, located.folder, facts)
    beats.update("fetch" if located.remote else "verify")
    model = source.complete(config.model, located, config.lora, layout.workspace)
    source.refuse_changed(config.model, layout, identity)
    source.remember(config.model, layout, identity, model)
    return {"dataset": dataset, "model": model}


def _standing(layout: RunLayout, identity: str, sources: dict[str, str]) -> JsonValue:
    """The figures of a data set that was prepared before, from the same records, and is whole.

    Raises StageError(CONFIGURATION) where the records are others by now: what was trained on the old ones must not
    pass for what the new ones give.
    """
    manifest = read_manifest(layout.data)
    if manifest is None or manifest.facts.get("identity") != identity:
        return None
    if manifest.facts.get("sources") != sources:
        raise _changed(layout, manifest.facts.get("sources"), sources)
    if wrong := problem(layout.data, manifest, contents=True):
        print(f"The prepared data set is damaged ({wrong}) and is made anew.", flush=True)
        shutil.rmtree(layout.data)
        return None
    return manifest.facts["figures"]


def _changed(layout: RunLayout, before: JsonValue, now: dict[str, str]) -> StageError:
    known = before if isinstance(before, dict) else {}
    names = sorted(name for name in known.keys() | now.keys() if known.get(name) != now.get(name))
    return StageError(
        ExitCode.CONFIGURATION,
        "WorkspaceInUse",
        f"The records in {', '.join(names[:3])} are not those that the workspace folder {layout.relative(layout.root)} "
        "was prepared from. Use another name for a run on the new records, or delete that folder to start anew.",
    )


def _write(
    config: RunConfig,
    layout: RunLayout,
    records: Records,
    findings: Findings,
    model: Path,
    facts: dict[str, JsonValue],
) -> dict[str, JsonValue]:
    """Writes and publishes the data set; `facts` say whose it is and what it was made from."""
    remove_drafts(layout.data)
    draft = draft_beside(layout.data)
    packer = _Packer(config.dataset, draft, Encoder(load_tokenizer(model), config.dataset.train_on))
    packer.add_all(records)
    _check_vocabulary(config, model, packer.largest_id)
    figures = packer.finish(config.training.seed)
    figures = _figures(config, findings, packer, figures, records)
    if records.conversion.chat_template:
        (draft / TEMPLATE).write_text(records.conversion.chat_template, encoding="utf-8")
    (draft / PROMPTS).write_text(json.dumps(_samples(records), ensure_ascii=False), encoding="utf-8")
    told: dict[str, JsonValue] = {"figures": figures, "sequenceLength": config.dataset.sequence_length}
    publish(draft, layout.data, kind=KIND, facts=facts | told)
    _log(records, figures)
    return figures


def _check_vocabulary(config: RunConfig, model: Path, largest_id: int) -> None:
    """Raises StageError(NO_INPUT) where the tokenizer gives ids that the embedding has no row for: on a GPU that would
    end in an assertion of the device.
    """
    size = json.loads((model / "config.json").read_text(encoding="utf-8")).get("vocab_size", FALCON_VOCABULARY)
    if largest_id >= size:
        raise StageError(
            ExitCode.NO_INPUT,
            "TokenizerNotUsable",
            f"{config.model.source}: its tokenizer gives the id {largest_id}, but its embedding has {size} rows. Take "
            "the tokenizer that belongs to these weights.",
        )


def _figures(
    config: RunConfig, findings: Findings, packer: "_Packer", packed: dict[str, JsonValue], records: Records
) -> dict[str, JsonValue]:
    """What the status shows of the data set: no floats, a custom resource has none."""
    return {
        "format": records.conversion.format,
        "records": findings.records + findings.invalid,
        "skipped": findings.invalid + packer.skipped,
        "truncated": packer.truncated,
        **packed,
        "totalSteps": total_steps(config.training, int(str(packed["sequences"]))),
    }


class _Packer:
    """Tokenizes documents into a draft, applies `tooLong`, and plans the rows."""

    def __init__(self, dataset: Dataset, draft: Path, encoder: Encoder) -> None:
        self._dataset, self._draft, self._encoder = dataset, draft, encoder
        self._lengths: list[int] = []
        self._trained = 0
        self.skipped = self.truncated = 0
        self.largest_id = 0
        self._too_long: list[str] = []

    def add_all(self, records: Records) -> None:
        """Raises StageError(DATA) where a record is too long and `tooLong` is fail, or nothing is left."""
        places: deque[Where] = deque()  # of the records that the encoder has read ahead

        def documents() -> Iterator[Document]:
            for record, document in records.documents():
                places.append(record.where)
                yield document

        writer = DocumentWriter(self._draft)
        for parts in self._encoder.encode(documents()):
            where = places.popleft()
            for tokens in parts:
                fitting = self._fitted(tokens, where)
                if fitting is None:
                    self.skipped += 1
                    continue
                writer.add(fitting)
                self._lengths.append(len(fitting.ids))
                self.largest_id = max(self.largest_id, *fitting.ids)
                self._trained += fitting.trained_count
        writer.close()
        self._refuse_too_long()

    def _fitted(self, tokens: Tokens, where: Where) -> Tokens | None:
        length = self._dataset.sequence_length
        if len(tokens.ids) > length:
            if self._dataset.too_long == "fail":
                self._too_long.append(f"{where}: {len(tokens.ids)} tokens")
                return None
            if self._dataset.too_long == "skip":
                return None
            tokens = tokens.cut(length)
            if tokens.trained_count:
                self.truncated += 1
        # A document whose prompt alone fills the row would be read and teach nothing.
        return tokens if tokens.trained_count else None

    def _refuse_too_long(self) -> None:
        length = self._dataset.sequence_length
        if self._too_long:
            more = len(self._too_long) - 5
            listing = "; ".join(self._too_long[:5]) + (f"; and {more} more" if more > 0 else "")
            raise StageError(
                ExitCode.DATA,
                "RecordTooLong",
                f"{len(self._too_long)} records are longer than dataset.sequenceLength {length}: {listing}. Raise "
                "sequenceLength, or set dataset.tooLong to truncate or skip.",
            )
        if not self._lengths:
            raise StageError(
                ExitCode.DATA,
                "EmptyDataset",
                f"The data set is empty: all {self.skipped} records were skipped because they do not fit into "
                f"dataset.sequenceLength {length} with any token of their answer.",
            )

    def finish(self, seed: int) -> dict[str, JsonValue]:
        """Writes the plan; returns its figures."""
        lengths = np.array(self._lengths, np.int64)
        length = self._dataset.sequence_length
        plan = pack(lengths, length, seed=seed) if self._dataset.packing == "best-fit" else one_each(len(lengths))
        write_plan(self._draft, plan)
        tokens = int(lengths.sum())
        return {
            "sequences": plan.rows,
            "tokens": tokens,
            "trainedTokens": self._trained,
            "packingEfficiency": decimal_text(round(tokens / (plan.rows * length), 4)),
        }


def _samples(records: Records) -> list[Sample]:
    """The first records as prompt, answer and the message that asks for it."""
    return [records.conversion.sample(record.fields) for record, _ in islice(records.documents(), SAMPLES)]


def _log(records: Records, figures: dict[str, JsonValue]) -> None:
    for sample in _samples(records):
        print(f"--- sample ---\n{(sample['prompt'] + sample['answer'])[:1000]}", flush=True)
    print("--- data set ---\n" + "\n".join(f"{name}: {value}" for name, value in figures.items()), flush=True)
