"""`python -m falcon_trainer.report RUN_FOLDER`: draws loss.png and index.html of a run from its other files."""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from falcon_trainer.report.page import draw

NICENESS = 10


def main() -> int:
    """Command line; 1 where the page could not be drawn."""
    parser = argparse.ArgumentParser(prog="python -m falcon_trainer.report", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run on the workspace: runs/NAME")
    run = parser.parse_args().run
    _give_way()
    try:
        draw(run)
    except Exception as error:  # noqa: BLE001,RUF100 - told in one sentence, whatever it is
        print(f"The report of {run} could not be drawn: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _give_way() -> None:
    """To the ranks of the pod: in computing time, and where memory runs out."""
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
