"""Training in real ranks: a run prepared in a workshop, trained by a gang, and how it ended."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from falcon_trainer import layout as layouts
from falcon_trainer.data.prepare import prepare
from tests.unit.trainer.ranks import Ranks
from tests.unit.trainer.workshop import RECORDS, Workshop

Heads = dict[str, dict[str, Any]]

TRAIN = """
from falcon_trainer.beats import Beats
from falcon_trainer.layout import CONFIG, RUNTIME, RunLayout
from falcon_trainer.told import read_config
from falcon_trainer.outcome import StageError
from falcon_trainer.train.stage import train
import json, os, sys
config, rank = read_config(CONFIG), int(os.environ["RANK"])
REPORT
BEFORE
try:
    ended = {"result": train(config, Beats("train", rank), RunLayout(config.run))}
except StageError as error:
    ended = {"code": error.code, "reason": error.reason, "step": error.step, "message": error.message}
(RUNTIME / f"ended-{rank}.json").write_text(json.dumps(ended))
sys.stdout.flush()
os._exit(0)
"""

NO_REPORT = """
from falcon_trainer.report.drawing import Drawing
from falcon_trainer.train.answering import Questions
Drawing.begin = Drawing.finish = lambda self: False
Questions.ask = lambda *anything: None
"""
"""Saves the seconds that samples and page cost each run."""


def train(
    shop: Workshop,
    settings: Heads,
    gang: Ranks | None = None,
    before: str = "",
    *,
    ranks: int = 2,
    report: bool = False,
) -> dict[str, Any]:
    """Trains, under torchrun unless a gang is given; how the stage ended, on all ranks alike.

    `before` is Python that each rank runs first; there, `rank` is its number. `report`: with samples and page.
    """
    program, config = (
        TRAIN.replace("REPORT", "" if report else NO_REPORT).replace("BEFORE", before),
        shop.config(**settings),
    )
    if gang:
        shop.fork(gang, program, config, ranks=ranks)
    else:
        shop.torchrun(program, config, ranks=ranks)
    ended = [json.loads((shop.root / "runtime" / f"ended-{rank}.json").read_text()) for rank in range(ranks)]
    assert all(each == ended[0] for each in ended)
    first: dict[str, Any] = ended[0]
    return first


def prepared(root: Path, settings: Heads) -> Workshop:
    """A run whose data and model are prepared from the repository's own records."""
    shop = Workshop(root)
    shop.put_records(RECORDS.read_text())
    shop.put_base()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "SOURCES", shop.sources)
        prepare(shop.config(**settings), shop.beats("prepare"), shop.layout)
    return shop


def from_step_3(origin: Workshop, root: Path) -> Workshop:
    """A copy of a run of six steps as it was after step 3."""
    shutil.copytree(origin.root, root, dirs_exist_ok=True)
    shop = Workshop(root)
    shutil.rmtree(shop.layout.root / "adapter")
    shutil.rmtree(next(shop.layout.attempts.glob("*/checkpoint-6")))
    return shop


def adapter(shop: Workshop) -> dict[str, torch.Tensor]:
    """The tensors of the run's finished adapter."""
    tensors: dict[str, torch.Tensor] = load_file(next(shop.layout.root.glob("adapter/*/adapter_model.safetensors")))
    return tensors


def largest_difference(one: Workshop, other: Workshop) -> float:
    """Of two runs' adapters, over all elements."""
    ours, theirs = adapter(one), adapter(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
