"""The stacks that a hung gang left in its report. Arguments: workspace, run."""

import json
import sys
from pathlib import Path


def main(workspace: str, run: str) -> None:
    report = Path(workspace) / "runs" / run / "report"
    print(json.dumps({path.name: path.read_text() for path in sorted(report.glob("stacks-*"))}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
