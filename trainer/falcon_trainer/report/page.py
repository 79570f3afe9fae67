"""The page: everything worth knowing of a training in one file that fetches nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from falcon_trainer.artifacts import write_file
from falcon_trainer.layout import RunLayout
from falcon_trainer.report import curves, words
from falcon_trainer.report.data import Data, read_data
from falcon_trainer.report.facts import Facts, read_facts
from falcon_trainer.report.metrics import Curve, History
from falcon_trainer.report.samples import Samples, read_samples

PAGE, LOSS, TEMPLATE = "index.html", "loss.png", "page.html.jinja"
ORDER = (
    "format",
    "records",
    "invalid",
    "skipped",
    "duplicates",
    "emptyAnswers",
    "truncated",
    "split",
    "documents",
    "longestDocument",
    "medianDocument",
    "sequences",
    "tokens",
    "trainedTokens",
    "packingEfficiency",
    "totalSteps",
)
"""Of the data set's figures on the page; others come after them."""


@dataclass(frozen=True)
class Tile:
    """A figure in the page's head."""

    name: str
    value: str
    detail: str = ""


def draw(run: Path) -> None:
    """Writes loss.png and index.html of the run in the folder `run`. Raises OSError where that cannot be done."""
    layout = RunLayout(run.name, run.parent.parent)
    history, facts = History(layout.report), read_facts(layout.report)
    curves.png(partial(_loss(history, facts), title=run.name), layout.report / LOSS)
    text = page(run.name, history, facts, read_data(layout.data), read_samples(layout.report))
    write_file(layout.report / PAGE, text)


def page(run: str, history: History, facts: Facts | None, data: Data, samples: Samples | None) -> str:
    """The HTML. Every text of the user is escaped; only our own drawings are not."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        number=words.number, short=words.short, size=words.size, percent=words.percent, rate=words.rate
    )
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        run=run,
        facts=facts,
        tiles=list(_tiles(history, facts)),
        loss=_svg(_loss(history, facts), "Loss over the steps"),
        drawings=list(_drawings(history)),
        samples=samples,
        data=data,
        figures=list(_flat(data.figures)),
        lengths=_svg(partial(curves.histogram, data.lengths), "Lengths of the records") if data.lengths else None,
        configuration=_yaml(facts.config) if facts else None,
        restarts=_restarts(facts),
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _loss(history: History, facts: Facts | None) -> Any:
    restarts = [start.step for start in facts.starts if start.step] if facts else []
    return partial(curves.loss, history.curve("loss"), history.curve("evaluationLoss"), restarts)


def _drawings(history: History) -> Iterator[tuple[str, Markup]]:
    """Title and drawing of each figure that was measured."""
    rate, norm, speed = (history.curve(name) for name in ("learningRate", "gradientNorm", "tokensPerSecond"))
    utilisation = [
        curves.Line(name.upper(), (x, 100 * y)) for name in ("mfu", "hfu") for x, y in [history.curve(name)] if len(x)
    ]
    for title, lines, formatter in (
        ("Learning rate", [curves.Line("learning rate", rate, noisy=False)], curves.PLAIN),
        ("Gradient norm", [curves.Line("gradient norm", norm)], curves.PLAIN),
        ("Tokens per second, all ranks", [curves.Line("tokens/s", speed)], curves.THOUSANDS),
        ("Utilisation of the hardware", utilisation, curves.PERCENT),
    ):
        if lines and len(lines[0].curve[0]):
            yield title, _svg(lambda colours, d=lines, f=formatter: curves.lines(d, colours, f), title)


def _svg(drawing: Any, description: str) -> Markup:
    return Markup(curves.svg(drawing, description))


def _tiles(history: History, facts: Facts | None) -> Iterator[Tile]:
    if not len(history.curve("loss")[0]):
        return
    total = f"of {facts.total_steps:,}; " if facts else ""
    epochs = f"{words.number(history.last('epoch'), 3)} epochs"
    yield Tile("Steps", f"{int(history.curve('loss')[0][-1]):,}", total + epochs)
    yield Tile("Training loss", *_last_and_lowest(history.curve("loss")))
    if len(history.curve("evaluationLoss")[0]):
        loss, lowest = _last_and_lowest(history.curve("evaluationLoss"))
        yield Tile("Validation loss", loss, f"{lowest}; perplexity {words.number(history.last('perplexity'))}")
    yield from _speed_tiles(history, facts)
    if facts:
        yield Tile("Ranks", f"{facts.world_size:,}", facts.peak.device)
    yield Tile("Peak memory", words.size(max(history.curve("memoryBytes")[1], default=0)), "of rank 0")


def _last_and_lowest(curve: Curve) -> tuple[str, str]:
    steps, losses = curve
    best = int(losses.argmin())
    return words.number(losses[-1]), f"lowest {words.number(losses[best])} at step {int(steps[best]):,}"


def _speed_tiles(history: History, facts: Facts | None) -> Iterator[Tile]:
    tokens, seconds = history.total("tokens"), history.total("seconds")
    if not seconds:
        return
    rate = tokens / seconds
    yield Tile("Tokens per second", words.short(rate), f"{words.short(tokens)} tokens, padding not counted")
    if facts:
        mfu, hfu = facts.utilisation(rate)
        yield Tile("MFU", words.percent(mfu), f"HFU {words.percent(hfu)}")
    yield Tile("Training time", words.duration(seconds), "in steps; loading, saving and evaluating not counted")


class _Dumper(yaml.SafeDumper):
    """Texts of several lines, such as templates, as blocks."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _yaml(config: dict[str, Any]) -> str:
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20)


def _restarts(facts: Facts | None) -> list[tuple[str, str, int, int]]:
    if facts is None:
        return []
    return [
        (str(s.attempt), datetime.fromtimestamp(s.time, UTC).strftime("%Y-%m-%d %H:%M UTC"), s.step, s.world_size)
        for s in facts.starts
    ]


def _flat(figures: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Figures of the data set as name and value; nested ones with the head's name before them."""
    for name, value in sorted(figures.items(), key=lambda item: _place(item[0])):
        said = f"{before}{_spaced(name)}"
        if isinstance(value, dict):
            yield from _flat(value, f"{said}: ")
        elif "efficiency" in name.lower():
            yield said, words.percent(float(value))
        elif isinstance(value, int | float):
            yield said, words.number(value)
        else:
            yield said, str(value)


def _place(figure: str) -> int:
    return ORDER.index(figure) if figure in ORDER else len(ORDER)


def _spaced(camel: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in camel)
