"""`falcon-trainer prepare --show N`: looks at a run's data without preparing it.

Where the run's data set stands, it is shown, from its own folder alone. Otherwise the records are read and checked, and
a random part of them is tokenized and packed in a temporary folder, as prepare would do it: sources and tokenizer are
needed, weights are not, and neither the run's folder nor the cluster changes (remote sources stay downloaded).
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from falcon_trainer.artifacts import problem, read_manifest
from falcon_trainer.config import RunConfig
from falcon_trainer.data import contents
from falcon_trainer.data.findings import refuse
from falcon_trainer.data.holdout import Holdout
from falcon_trainer.data.paint import Paint
from falcon_trainer.data.preview import describe
from falcon_trainer.data.records import Records
from falcon_trainer.data.sources import Sources
from falcon_trainer.data.tokenization import Encoder, load_tokenizer
from falcon_trainer.data.writing import Writing
from falcon_trainer.identity import digest_of, identity_of
from falcon_trainer.layout import RunLayout
from falcon_trainer.model import source

TOKENIZED = 1000
"""Records of a data set that is not prepared yet that are packed to be shown: a second or two of work."""


def show(config: RunConfig, layout: RunLayout, count: int, *, seed: int, paint: Paint) -> Iterator[str]:
    """The lines of `prepare --show`. Raises StageError."""
    if _stands(config, layout):
        yield f"The prepared data set in {layout.data}:"
        yield from describe(layout.data, config.dataset, count, seed=seed, paint=paint)
        return
    with TemporaryDirectory(prefix="falcon-preview-") as folder:
        yield _write_part(config, layout, Path(folder), seed)
        yield from describe(Path(folder), config.dataset, count, seed=seed, paint=paint)


def _stands(config: RunConfig, layout: RunLayout) -> bool:
    manifest = read_manifest(layout.data)
    return (
        manifest is not None
        and manifest.facts.get("identity") == digest_of(identity_of(config))
        and problem(layout.data, manifest, contents=False) is None
    )


def _write_part(config: RunConfig, layout: RunLayout, folder: Path, seed: int) -> str:
    """Writes a random part of the records into `folder` as prepare would; returns what is said of it."""
    dataset = config.dataset.model_copy(update={"validation": None})
    sources = Sources(dataset, layout.root / contents.DOWNLOADS)
    sources.fetch()
    tokenizer = _tokenizer(config, layout)
    records = Records(dataset, sources, eos_token=tokenizer.eos_token, seed=seed)
    findings = records.check()
    findings.log()
    refuse(
        findings,
        dataset.model_copy(update={"on_invalid": "skip", "max_invalid_fraction": 1.0}),
        [file.name for file in records.files],
    )
    ceiling = np.sort(records.keys)[: min(TOKENIZED, findings.valid)].max()
    part = Writing(dataset, folder, Holdout())
    part.add_all((each for each in records.examples() if each.key <= ceiling), Encoder(tokenizer, dataset.train_on))
    part.close(seed)
    tokenizer.backend_tokenizer.save(str(folder / contents.TOKENIZER))
    all_of_them = f"{part.training.records} of {findings.valid} usable" if findings.valid > TOKENIZED else "all usable"
    return f"Not prepared yet: {all_of_them} records as prepare would write them (format {records.conversion.format})"


def _tokenizer(config: RunConfig, layout: RunLayout) -> Any:
    """The base model's, without asking whether its weights are there."""
    folder = source.model_folder(config.model, layout.workspace)
    if not (folder / "tokenizer.json").is_file():
        folder = source.locate(config.model, config.run, layout.workspace).folder
    return load_tokenizer(folder)
