"""The report's drawings, by matplotlib: as SVG whose colours are the page's, so that they change with its theme, and as
a PNG in the colours of a light page.
"""

import io
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator

from falcon_trainer.report.data import Histogram
from falcon_trainer.report.metrics import Curve
from falcon_trainer.report.series import SHORTEST, smoothed, span, thinned

WIDE, SMALL = (10.0, 3.6), (4.9, 2.3)
"""Inches."""
DOTS_PER_INCH = 160
FEW = 10 * SHORTEST
"""Fewer points are drawn as they are: their mean would say no more."""


PERCENT = FuncFormatter(lambda value, _: f"{value:.3g} %")
PLAIN = FuncFormatter(lambda value, _: f"{value:.3g}")
THOUSANDS = FuncFormatter(lambda value, _: f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}")


@dataclass(frozen=True)
class Colours:
    """Of a drawing: as matplotlib understands them."""

    page: str
    text: str
    grid: str
    first: str
    second: str
    restart: str


LIGHT = Colours(page="#ffffff", text="#57606a", grid="#d8dee4", first="#0969da", second="#bc4c00", restart="#8250df")
THEMED = Colours(page="#060606", text="#010101", grid="#020202", first="#030303", second="#040404", restart="#050505")
"""Stand for the page's variables of the same names (`--text` and so on), which matplotlib cannot draw with."""


@dataclass(frozen=True)
class Line:
    """One curve of a drawing."""

    label: str
    curve: Curve
    noisy: bool = True
    """Its mean says more than its values."""


def loss(training: Curve, evaluation: Curve, restarts: list[int], colours: Colours, title: str = "") -> Figure:
    """Training loss with its mean, loss on the validation rows with its lowest point, restarts."""
    figure, axes = _axes(WIDE, colours)
    axes.set_title(title, color=colours.text, loc="left", fontsize=10)
    _noisy(axes, training, "training", colours.first)
    if len(evaluation[0]):
        _validation(axes, evaluation, colours)
    for number, step in enumerate(restarts):
        label = "restart" if number == 0 else None
        axes.axvline(step, color=colours.restart, linewidth=1, linestyle=(0, (4, 3)), label=label)
    axes.set_ylabel("loss", color=colours.text)
    axes.set_xlabel("step", color=colours.text)
    _legend(axes, colours)
    return figure


def lines(drawn: list[Line], colours: Colours, formatter: Formatter) -> Figure:
    """One or two curves over the steps, from zero."""
    figure, axes = _axes(SMALL, colours)
    for line, colour in zip(drawn, (colours.first, colours.second), strict=False):
        if line.noisy:
            _noisy(axes, line.curve, line.label, colour)
        else:
            axes.plot(*thinned(*line.curve), color=colour, linewidth=1.8)
    axes.set_ylim(bottom=0, top=1.08 * max(float(line.curve[1].max()) for line in drawn) or 1)
    axes.yaxis.set_major_formatter(formatter)
    if len(drawn) > 1:
        _legend(axes, colours)
    return figure


def histogram(data: Histogram, colours: Colours) -> Figure:
    """Records by their number of tokens; the last bar may be wider than it is drawn, for what is longer than a row."""
    figure, axes = _axes(SMALL, colours)
    edges = np.array(data.edges)
    width = edges[1] - edges[0]
    axes.bar(edges[:-1], data.counts, width=0.92 * width, align="edge", color=colours.first)
    axes.set_xlabel("tokens of a record", color=colours.text)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def svg(draw: Callable[[Colours], Figure], description: str) -> str:
    """An SVG element without a fixed size, to stand in a page."""
    name = re.sub(r"\W+", "-", description.lower())
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.id": name}):
        draw(THEMED).savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for variable, colour in asdict(THEMED).items():
        drawn = drawn.replace(colour, f"var(--{variable})")
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawn))
    drawn = re.sub(r"font-family: [^;\"]*", "font-family: inherit", drawn)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)


def png(draw: Callable[[Colours], Figure], path: Path) -> None:
    """A PNG file, replaced as a whole."""
    beside = path.with_name(f".{path.name}.tmp")
    draw(LIGHT).savefig(beside, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    beside.replace(path)


def _axes(size: tuple[float, float], colours: Colours) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(colors=colours.text, labelcolor=colours.text, length=0, labelsize=9)
    axes.grid(color=colours.grid, linewidth=0.8, axis="y")
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(colours.grid)
    axes.xaxis.set_major_locator(MaxNLocator(8 if size == WIDE else 5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6 if size == WIDE else 4))
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.yaxis.set_major_formatter(THOUSANDS)
    axes.margins(x=0.02)
    return figure, axes


def _noisy(axes: Axes, curve: Curve, label: str, colour: str) -> None:
    """A curve, and over it, where it has many points, its mean."""
    x, y = curve
    if len(x) < FEW:
        axes.plot(x, y, color=colour, linewidth=1.6, label=label, marker="o" if len(x) == 1 else None, markersize=4)
        return
    axes.plot(*thinned(x, y), color=colour, linewidth=0.8, alpha=0.35)
    width = span(len(x))
    axes.plot(*thinned(x, smoothed(y, width)), color=colour, linewidth=1.8, label=f"{label}, mean of {width} steps")


def _validation(axes: Axes, evaluation: Curve, colours: Colours) -> None:
    x, y = evaluation
    dots = "o" if len(x) <= 2 * FEW else None
    axes.plot(*thinned(x, y), color=colours.second, linewidth=1.5, label="validation", marker=dots, markersize=3.5)
    best = int(np.argmin(y))
    axes.plot(
        x[best], y[best], color=colours.second, marker="*", markersize=11, linestyle="", label="lowest validation"
    )


def _legend(axes: Axes, colours: Colours) -> None:
    axes.legend(facecolor=colours.page, edgecolor="none", labelcolor=colours.text, fontsize=9)
