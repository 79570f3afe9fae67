"""Makes the data set of a run: records are checked and, once the tokenizer is there, written, described, published."""

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer.artifacts import draft_beside, publish, remove_drafts
from falcon_trainer.config import RunConfig
from falcon_trainer.data import contents
from falcon_trainer.data.findings import refuse
from falcon_trainer.data.formats.conversion import END_OF_TEXT
from falcon_trainer.data.paint import Paint
from falcon_trainer.data.preview import SHORT, describe
from falcon_trainer.data.records import Records, Say
from falcon_trainer.data.served import check_served
from falcon_trainer.data.sources import Sources
from falcon_trainer.data.statistics import Figures, figures, statistics
from falcon_trainer.data.store import PackedRows
from falcon_trainer.data.tokenization import TEMPLATE, Encoder, load_tokenizer, travelling
from falcon_trainer.data.writing import Writing
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError

FALCON_VOCABULARY = 65024
"""FalconConfig's default, where a config.json says nothing."""
CHECKED = 3
"""Records whose prompts are read as a server reads them, before the others are written."""
LOGGED = 3
"""Documents that the log shows."""


class Making:
    """A data set from its checked records to its published folder."""

    def __init__(
        self, config: RunConfig, layout: RunLayout, sources: Sources, facts: dict[str, JsonValue], say: Say
    ) -> None:
        """Checks every record. Raises StageError(DATA) where they cannot be used.

        `facts` say whose data set this is and what it is made from; `say` is told how far it is.
        """
        self._config, self._layout, self._sources, self._facts, self._say = config, layout, sources, facts, say
        self._records = self._checked(END_OF_TEXT)
        self._holdout = self._records.holdout()

    def _checked(self, eos_token: str) -> Records:
        dataset = self._config.dataset
        records = Records(dataset, self._sources, eos_token=eos_token, seed=self._config.training.seed)
        findings = records.check(self._say)
        findings.log()
        refuse(findings, dataset, [file.name for file in records.files])
        return records

    def publish(self, model: Path) -> Figures:
        """Writes and publishes the data set, with the tokenizer of the model folder; returns its figures."""
        tokenizer = load_tokenizer(model)
        if tokenizer.eos_token != END_OF_TEXT:  # no published Falcon's: the text of a chat is another one then
            self._records = self._checked(tokenizer.eos_token)
            self._holdout = self._records.holdout()
        self._check_served(tokenizer)
        remove_drafts(self._layout.data)
        draft = draft_beside(self._layout.data)
        try:
            told = self._fill(draft, model, tokenizer)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        facts = self._facts | {"figures": told, "sequenceLength": self._config.dataset.sequence_length}
        publish(draft, self._layout.data, kind=contents.KIND, facts=facts)
        self._log(told)
        return told

    def _check_served(self, tokenizer: Any) -> None:
        conversion = self._records.conversion
        first = [example.record.fields for example in islice(self._records.examples(), CHECKED)]
        check_served(travelling(tokenizer, conversion.chat_template), conversion, first)

    def _fill(self, draft: Path, model: Path, tokenizer: Any) -> Figures:
        """Writes the rows and what lies beside them."""
        dataset = self._config.dataset
        written = Writing(dataset, draft, self._holdout)
        written.add_all(self._records.examples(), Encoder(tokenizer, dataset.train_on), self._say)
        written.close(self._config.training.seed)
        self._check_vocabulary(model, max(rows.largest_id for rows in written.sets))
        return self._describe(draft, written, tokenizer)

    def _check_vocabulary(self, model: Path, largest_id: int) -> None:
        """Raises StageError(NO_INPUT) where the tokenizer gives ids that the embedding has no row for: on a GPU that
        would end in an assertion of the device.
        """
        settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
        size = settings.get("vocab_size", FALCON_VOCABULARY)
        if largest_id >= size:
            raise StageError(
                ExitCode.NO_INPUT,
                "TokenizerNotUsable",
                f"{self._config.model.source}: its tokenizer gives the id {largest_id}, but its embedding has {size} "
                "rows. Take the tokenizer that belongs to these weights.",
            )

    def _describe(self, draft: Path, written: Writing, tokenizer: Any) -> Figures:
        """Writes everything that lies beside the rows; returns the figures."""
        dataset, conversion, findings = self._config.dataset, self._records.conversion, self._records.findings
        told = figures(dataset, self._config.training, str(conversion.format), findings, written)
        drawn = statistics(dataset, told, findings, written, PackedRows(draft).lengths)
        samples = [conversion.sample(example.record.fields) for example in written.samples]
        for name, value in ((contents.STATISTICS, drawn), (contents.PROMPTS, samples)):
            (draft / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
        if conversion.chat_template is not None:
            (draft / TEMPLATE).write_text(conversion.chat_template, encoding="utf-8")
        tokenizer.backend_tokenizer.save(str(draft / contents.TOKENIZER))
        return told

    def _log(self, told: Figures) -> None:
        seed = self._config.training.seed
        for line in describe(self._layout.data, self._config.dataset, LOGGED, seed=seed, paint=Paint(), extent=SHORT):
            print(line)
        print("--- data set ---\n" + "\n".join(f"{name}: {value}" for name, value in told.items()), flush=True)
