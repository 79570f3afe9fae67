"""A run's folder as a training leaves it, made up: what the page is drawn from."""

import json
import math
from pathlib import Path

from pydantic import JsonValue

from falcon_trainer.artifacts import draft_beside, publish
from falcon_trainer.data.contents import KIND, STATISTICS
from falcon_trainer.layout import RunLayout
from falcon_trainer.report.facts import Facts, Start
from falcon_trainer.report.flops import Work
from falcon_trainer.report.metrics import METRICS
from falcon_trainer.report.peak import Peak
from falcon_trainer.report.samples import Sample, Samples

EVIL = "<script>alert('x')</script> & </pre> {{ 7 * 7 }}"
"""In every text that a user can set."""


def facts(**changed: object) -> Facts:
    known = Facts(
        run="run",
        base=f"base {EVIL}",
        config={"dataset": {"template": EVIL}, "training": {"learningRate": "0.0001"}},
        total_steps=40,
        world_size=2,
        trained_parameters=1000,
        base_parameters=100_000,
        attention="sdpa per document",
        versions={"torch": "2.13.0"},
        work=Work(decoder_parameters=80_000, head_parameters=20_000, trained_share=0.5, recomputed_share=1.0),
        peak=Peak(device="CPU, 1 thread per rank", flops=1e10, origin="measured"),
        starts=[
            Start(attempt=0, step=0, time=1e9, world_size=2),
            Start(attempt=1, step=10, time=1e9 + 60, world_size=2),
        ],
        state="finished",
    )
    return known.model_copy(update=changed)


def write_metrics(layout: RunLayout, steps: int, *, evaluations: int = 0) -> None:
    """A falling loss, and so many evaluations in between."""
    layout.report.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(1, steps + 1):
        loss = 1 + 2 * math.exp(-4 * step / steps) + 0.1 * math.sin(step * 1.7)
        known = {"loss": loss, "learningRate": 1e-4, "gradientNorm": 0.5, "tokensPerSecond": 900 + step % 7}
        used = {"mfu": 0.3, "hfu": 0.45, "memoryBytes": 3 << 30, "tokens": 1000, "seconds": 1.25}
        lines.append({"step": step, "epoch": step / 10, **known, **used})
        if evaluations and step % (steps // evaluations) == 0:
            lines.append({"step": step, "evaluationLoss": loss + 0.1, "perplexity": math.exp(loss + 0.1)})
    (layout.report / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_data(layout: RunLayout) -> None:
    """A prepared data set without its documents, which the page does not read."""
    draft = draft_beside(layout.data)
    lengths = {"edges": [0, 50, 100, 180], "counts": [7, 11, 2], "quantiles": {"0.5": 61, "0.99": 140}}
    statistics = {"invalidKinds": {f"missing field {EVIL}": 3}, "lengths": lengths}
    (draft / STATISTICS).write_text(json.dumps(statistics))
    figures: JsonValue = {
        "format": "dolly",
        "records": 12_345,
        "packingEfficiency": "0.9971",
        "validation": {"tokens": 678},
    }
    publish(draft, layout.data, kind=KIND, facts={"figures": figures})


def finished_run(workspace: Path, steps: int = 40) -> RunLayout:
    """A run with everything: evaluations, a restart, samples, statistics."""
    layout = RunLayout("run", workspace)
    write_metrics(layout, steps, evaluations=8)
    write_data(layout)
    facts().write(layout.report)
    asked = Sample(prompt=f"Prompt {EVIL}", expected="Tope", before="\n \n …", after=f"Answer {EVIL}")
    left = Sample(prompt="Second prompt", expected="Rope")
    Samples(samples=[asked, left], notes=["One note."]).write(layout.report)
    return layout
