"""Drawing in the background: one process at a time, which may fail or hang without anyone noticing but the log."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from falcon_trainer.report import drawing as module
from falcon_trainer.report.drawing import Drawing
from falcon_trainer.report.page import LOSS, PAGE
from tests.unit.trainer.report.finished_run import finished_run


def test_the_end_waits_until_page_and_curve_are_drawn(tmp_path: Path) -> None:
    layout = finished_run(tmp_path)
    Drawing(layout.root).finish()
    assert (layout.report / PAGE).read_text().endswith("</html>")
    assert (layout.report / LOSS).stat().st_size > 10_000


def test_what_cannot_be_drawn_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("not a folder")
    done = subprocess.run(
        [sys.executable, "-m", "falcon_trainer.report", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"The report of {tmp_path} could not be drawn: ")
    assert "Traceback" not in done.stderr


class Sleeper(Drawing):
    """A drawing that hangs."""

    starts = 0

    def _start(self) -> None:
        self.starts += 1
        self._started = time.monotonic()
        self._process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def test_nothing_is_drawn_before_its_time_or_twice_at_once(tmp_path: Path) -> None:
    late = Sleeper(tmp_path, every=3600)
    assert not late.begin()
    sleeper = Sleeper(tmp_path, every=0)
    assert sleeper.begin()
    assert not sleeper.begin()
    assert sleeper.starts == 1
    sleeper._stop()


def test_a_drawing_that_hangs_is_ended_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LAST_SECONDS", 0.2)
    sleeper = Sleeper(tmp_path, every=0)
    sleeper.begin()
    sleeper.finish()
    assert sleeper.starts == 2
    assert sleeper._process
    assert sleeper._process.poll() is not None
    assert "not drawn within" in caplog.text


def test_the_process_that_draws_imports_none_of_the_libraries_of_training() -> None:
    """They would cost it ten seconds and a gigabyte beside the ranks."""
    program = "import sys, falcon_trainer.report.page; print({'torch', 'transformers', 'pyarrow'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
