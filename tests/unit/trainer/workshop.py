"""What the tests of the machine-learning part work on: a tokenizer, small Falcons, a workspace of their own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from falcon_trainer.beats import Beats
from falcon_trainer.config import RunConfig
from falcon_trainer.layout import RunLayout
from falcon_trainer.tiny import make_base, texts_of, train_tokenizer
from tests.unit.trainer.ranks import Ranks

REPOSITORY = Path(__file__).resolve().parents[3]
RECORDS = REPOSITORY / "examples" / "data" / "dolly-mini.jsonl"
FALCON_TOKENIZER = REPOSITORY.parent / "shared" / "data" / "falcon-tokenizer"

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2}
"""A Falcon-180B in shape (grouped heads, two layer norms), small enough for a test."""
SEVEN_B = {"new_decoder_architecture": False, "multi_query": True, "num_attention_heads": 4, "num_kv_heads": None}
"""Falcon-7B's flags: one K/V head for all, one layer norm."""
ELEVEN_B = {"num_ln_in_parallel_attn": 1, "tie_word_embeddings": False}
"""Falcon2-11B's flags."""


@cache
def tokenizer() -> Any:
    """A byte-level tokenizer of 400 entries, trained on the records."""
    return train_tokenizer(texts_of([RECORDS]), vocabulary=400)


def records() -> list[dict[str, str]]:
    return [json.loads(line) for line in RECORDS.read_text().splitlines()]


def small_base(folder: Path, **overrides: Any) -> Any:
    """Saves a small Falcon with the tokenizer; returns the model."""
    return make_base(folder, tokenizer(), **(SMALL | overrides))


def small_falcon(**overrides: Any) -> Any:
    """A small Falcon as it is trained, in memory."""
    import torch
    from transformers import FalconConfig

    from falcon_trainer.model.attention import sdpa_kernel
    from falcon_trainer.model.packed import PackedFalcon

    flags = {"new_decoder_architecture": True, "parallel_attn": True, "bias": False, "alibi": False, "vocab_size": 101}
    torch.manual_seed(0)
    # Large random weights: with small ones a leak between documents would hardly show.
    config = FalconConfig(**(flags | SMALL | {"initializer_range": 0.2} | overrides))
    return PackedFalcon(config, sdpa_kernel).eval()


@dataclass(frozen=True)
class Workshop:
    """A workspace, mounted claims `data` and `models`, and the configuration of a run."""

    root: Path
    run: str = "tiny"

    @property
    def layout(self) -> RunLayout:
        return RunLayout(self.run, self.root / "workspace")

    @property
    def sources(self) -> Path:
        return self.root / "sources"

    def put_records(self, text: str, name: str = "records.jsonl") -> Path:
        path = self.sources / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def put_base(self, **overrides: Any) -> Path:
        folder = self.sources / "models" / "base"
        small_base(folder, **overrides)
        return folder

    def config(self, **heads: dict[str, Any]) -> RunConfig:
        """A run on the workshop's inputs; `heads` are merged into the spec's."""
        spec: dict[str, Any] = {
            "run": self.run,
            "namespace": "tests",
            "model": {"source": "pvc://models/base"},
            "dataset": {"sources": [{"uri": "pvc://data/records.jsonl"}], "sequenceLength": 96},
            "lora": {"rank": 4, "alpha": 8, "dropout": "0"},
            "training": {"maxSteps": 6, "globalBatchSize": 4, "microBatchSize": 1, "learningRate": "0.003"},
            "gang": {"nodes": 2, "gpusPerNode": 0},
        }
        return RunConfig.model_validate(spec | {name: spec.get(name, {}) | value for name, value in heads.items()})

    def beats(self, stage: str) -> Beats:
        return Beats(stage, directory=self.root / "runtime")

    def torchrun(self, program: str, config: RunConfig, *, ranks: int = 2) -> None:
        """Runs a Python program under torchrun, in every rank of one node; fails with the log where a rank fails."""
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        done = subprocess.run(
            [*command, str(self._told(program, config))],
            cwd=REPOSITORY,
            env={**os.environ, **self.environment()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:]

    def fork(self, gang: Ranks, program: str, config: RunConfig, *, ranks: int = 2) -> None:
        """As torchrun, in ranks that need not import."""
        gang.run(self._told(program, config), self.environment(), ranks)

    def _told(self, program: str, config: RunConfig) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "run.json").write_text(config.model_dump_json(by_alias=True, exclude_none=True))
        (self.root / "program.py").write_text(program)
        return self.root / "program.py"

    def environment(self) -> dict[str, str]:
        return {
            "FALCON_WORKSPACE": str(self.layout.workspace),
            "FALCON_SOURCES": str(self.sources),
            "FALCON_CONFIG": str(self.root / "run.json"),
            "FALCON_RUNTIME": str(self.root / "runtime"),
            "PYTHONPATH": str(REPOSITORY),
        }
