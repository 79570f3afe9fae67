"""The page: one file that fetches nothing, trusts no text, and can be drawn from whatever there is."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from falcon_trainer.layout import RunLayout
from falcon_trainer.report.facts import FACTS, read_facts
from falcon_trainer.report.metrics import METRICS
from falcon_trainer.report.page import LOSS, PAGE, draw
from falcon_trainer.report.samples import FILE
from tests.unit.trainer.report.finished_run import EVIL, facts, finished_run, write_metrics

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Read(HTMLParser):
    """Elements, attributes and text of a page; fails where an element is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data + " "


def drawn(layout: RunLayout) -> str:
    draw(layout.root)
    return (layout.report / PAGE).read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return drawn(finished_run(tmp_path_factory.mktemp("workspace")))


def test_it_runs_no_script_and_fetches_nothing(page: str) -> None:
    read = Read(page)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(read.elements)
    sources = [
        value or "" for name, value in read.attributes if name in {"src", "href", "xlink:href", "data", "action"}
    ]
    assert all(source.startswith("#") for source in sources)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert "@import" not in page
    assert "url(" not in page.replace("url(#", "")


def test_every_text_of_the_user_stands_there_as_text(page: str) -> None:
    text = Read(page).text
    for place in (f"base {EVIL}", f"Prompt {EVIL}", f"Answer {EVIL}", f"missing field {EVIL}", f"template: {EVIL}"):
        assert place in text, place


def test_it_says_how_the_training_went(page: str) -> None:
    text = " ".join(Read(page).text.split())
    for said in (
        "run finished",
        "Steps 40 of 40; 4 epochs",
        "Validation loss",
        "perplexity",
        "Tokens per second 800",
        "MFU 1.44 % HFU 2.08 %",  # 800 tokens/s x (4 x 90,000 and 6 x 80,000 + 4 x 10,000) / (2 ranks x 10 GFLOP/s)
        "Training time 50 s",
        "Peak memory 3 GiB",
        "records 12,345",
        "packing efficiency 99.7 %",
        "validation: tokens 678",
        "not asked",
        "nothing but blanks",
        "One note.",
        "learningRate: '0.0001'",
    ):
        assert said in text, said


def test_its_drawings_are_svg_in_the_colours_of_the_page(page: str) -> None:
    drawings = ["<svg" + part.partition("</svg>")[0] + "</svg>" for part in page.split("<svg")[1:]]
    assert len(drawings) == 6
    for drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.get("aria-label")
        assert root.get("width") is None
        assert re.findall(r"#[0-9a-f]{6}\b", drawing) == []
        assert "var(--text)" in drawing


def test_steps_whose_batch_was_left_out_are_named(tmp_path: Path) -> None:
    layout = finished_run(tmp_path)
    assert "Left out" not in Read(drawn(layout)).text
    facts(skipped=[7, 31]).write(layout.report)
    assert "the first global batch of step 7, 31" in Read(drawn(layout)).text


def test_restarts_and_the_lowest_validation_loss_are_marked(page: str) -> None:
    loss = page.partition("<svg")[2].partition("</svg>")[0]
    for label in ("restart", "lowest validation", ">training<"):
        assert label in loss


def test_the_png_is_a_picture(tmp_path: Path) -> None:
    layout = finished_run(tmp_path)
    draw(layout.root)
    with Image.open(layout.report / LOSS) as picture:
        picture.load()
        assert picture.width > 1200
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50


def test_a_hundred_thousand_steps_make_a_page_of_less_than_two_megabytes(tmp_path: Path) -> None:
    layout = finished_run(tmp_path)
    write_metrics(layout, 100_000, evaluations=1000)
    page = drawn(layout)
    assert "100,000" in page
    assert len(page) < 1_000_000


def nothing(layout: RunLayout) -> None:
    """Leaves the report empty."""
    for name in (METRICS, FACTS, FILE):
        (layout.report / name).unlink()


def garbage(layout: RunLayout) -> None:
    for name in (METRICS, FACTS, FILE):
        (layout.report / name).write_text('{"step": ')


def one_step(layout: RunLayout) -> None:
    write_metrics(layout, 1)


def fewer_figures(layout: RunLayout) -> None:
    """As an older release wrote them."""
    (layout.report / METRICS).write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.25}\n')


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (nothing, "No step is done yet"),
        (garbage, "No step is done yet"),
        (one_step, "1 of 40"),
        (fewer_figures, "2.25"),
    ],
)
def test_it_can_be_drawn_from_whatever_there_is(tmp_path: Path, damage: Any, said: str) -> None:
    layout = finished_run(tmp_path)
    damage(layout)
    assert said in " ".join(Read(drawn(layout)).text.split())


def test_without_prepared_data_or_samples_their_parts_are_left_out(tmp_path: Path) -> None:
    layout = RunLayout("run", tmp_path)
    write_metrics(layout, 5)
    facts(state="training").write(layout.report)
    text = Read(drawn(layout)).text
    assert "training" in text
    assert "Samples" not in text
    assert "packing efficiency" not in text


def test_facts_of_a_later_release_are_not_misread(tmp_path: Path) -> None:
    layout = finished_run(tmp_path)
    path = layout.report / FACTS
    path.write_text(path.read_text().replace('"state"', '"novelty": 1, "state"'))
    assert read_facts(layout.report) is None
    assert "40" in Read(drawn(layout)).text
