"""`facts.json`: what the page says of a run beside its figures, so that anyone can draw it again from the folder."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from falcon_trainer.artifacts import write_file
from falcon_trainer.report.flops import Work
from falcon_trainer.report.peak import Peak
from falcon_trainer.wire import Wire

FACTS = "facts.json"
LONGEST_HISTORY = 1000
"""Starts that are kept."""

State = Literal["training", "finished", "stopped early"]


class Start(Wire):
    """One start of the training: the first, or a restart from a checkpoint."""

    attempt: int
    step: int = Field(description="Step it went on from; 0 is the beginning.")
    time: float = Field(description="Unix seconds.")
    world_size: int


class Facts(Wire):
    """Of one run; rank 0 writes them when it starts and when it ends."""

    run: str
    base: str
    config: dict[str, Any] = Field(description="The RunConfig, as it stands in the resource.")
    total_steps: int
    world_size: int
    trained_parameters: int
    base_parameters: int
    attention: str
    versions: dict[str, str]
    work: Work
    peak: Peak
    starts: list[Start]
    skipped: list[int] = Field(default=[], description="Steps whose global batch was left out and another one taken.")
    state: State = "training"

    def utilisation(self, tokens_per_second: float) -> tuple[float, float]:
        """MFU and HFU of the whole gang, as shares of 1."""
        most = self.world_size * self.peak.flops
        rate = tokens_per_second / most
        return rate * self.work.model_flops, rate * self.work.hardware_flops

    def write(self, folder: Path) -> None:
        """Replaces the file in `folder`."""
        write_file(folder / FACTS, self.model_dump_json(by_alias=True, indent=1))


def read_facts(folder: Path) -> Facts | None:
    """The facts in `folder`; None where there are none of this release."""
    try:
        return Facts.model_validate_json((folder / FACTS).read_bytes())
    except (OSError, ValidationError):
        return None


def starts_so_far(folder: Path, now: Start) -> list[Start]:
    """The earlier starts, and this one."""
    earlier = read_facts(folder)
    return [*(earlier.starts if earlier and now.step else []), now][-LONGEST_HISTORY:]
