"""`samples.json`: the prompts that prepare stored, and how the model answered them: before the training, after it, and
as it is served.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from falcon_trainer.artifacts import write_file
from falcon_trainer.wire import Wire

FILE = "samples.json"

NEW_TOKENS = 32
"""Tokens of an answer, at most."""
CUT = " …"
"""Ends an answer that would have gone on."""

UNSERVED = "The served model did not answer every prompt"
"""Begins a note that an evaluation leaves."""

Moment = Literal["before", "after", "served"]


class Sample(Wire):
    """A prompt and its answers; None where it was not asked."""

    prompt: str
    expected: str
    before: str | None = None
    after: str | None = None
    served: str | None = None


class Samples(Wire):
    """The file."""

    samples: list[Sample]
    tries: dict[Moment, int] = Field(default={}, description="How often each moment was begun.")
    notes: list[str] = Field(default=[], description="Why something is missing, as sentences.")
    merged: str | None = Field(default=None, description="Digest of the model that answered as served.")

    def write(self, report: Path) -> None:
        """Replaces the file in `report`."""
        write_file(report / FILE, self.model_dump_json(by_alias=True, indent=1))

    def noted(self, sentence: str) -> "Samples":
        """With one more note, said once."""
        return self.model_copy(update={"notes": list(dict.fromkeys([*self.notes, sentence]))})

    def as_served(self, merged: str, texts: Sequence[str | None], problems: Iterable[str]) -> "Samples":
        """With what the served model of that digest answers, and why not where it does not, in place of what an earlier
        one did; `texts` has one for each sample."""
        new = [s.model_copy(update={"served": text}) for s, text in zip(self.samples, texts, strict=True)]
        notes = [note for note in self.notes if not note.startswith(UNSERVED)]
        notes += dict.fromkeys(f"{UNSERVED} ({problem})." for problem in problems)
        return self.model_copy(update={"samples": new, "notes": notes, "merged": merged})

    def answered(self, moment: Moment, texts: Mapping[int, str]) -> "Samples":
        """With the answers of one moment, by the number of the sample."""
        new = [
            sample.model_copy(update={moment: texts[number]}) if number in texts else sample
            for number, sample in enumerate(self.samples)
        ]
        return self.model_copy(update={"samples": new})

    def begun(self, moment: Moment) -> "Samples":
        """With one more try."""
        return self.model_copy(update={"tries": {**self.tries, moment: self.tries.get(moment, 0) + 1}})


def read_samples(report: Path) -> Samples | None:
    """The samples of the run in `report`; None where there are none."""
    try:
        return Samples.model_validate_json((report / FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def stored(prompts: Path) -> Samples:
    """New samples of the prompts that prepare stored."""
    records = json.loads(prompts.read_text(encoding="utf-8"))
    return Samples(samples=[Sample(prompt=each["prompt"], expected=each["answer"]) for each in records])
