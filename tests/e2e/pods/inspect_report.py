"""Lists a run's report and reads its figures. Arguments: workspace, run."""

import json
import re
import sys
from pathlib import Path


def main(workspace: str, run: str) -> None:
    report = Path(workspace) / "runs" / run / "report"
    lines = [json.loads(line) for line in (report / "metrics.jsonl").read_text().splitlines()]
    files = {str(path.relative_to(report)): path.stat().st_size for path in report.rglob("*") if path.is_file()}
    page = (report / "index.html").read_text() if "index.html" in files else ""
    found = {
        "files": files,
        "steps": [line for line in lines if "loss" in line],
        "evaluations": [line for line in lines if "evaluationLoss" in line],
        "external": re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']+)""", page),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:3])
