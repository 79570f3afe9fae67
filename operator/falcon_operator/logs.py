"""Log lines: one JSON object each, so that a collector can select by run without parsing sentences."""

import json
import logging
from datetime import UTC, datetime

FIELDS = ("namespace", "run")
QUIET = ("kopf", "aiohttp", "asyncio", "kubernetes")
"""Libraries that write a line for every event at INFO."""


class JsonLines(logging.Formatter):
    """time, level, message; the run, where a line is about one; the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("falcon_operator."),
            "message": record.getMessage(),
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None))}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(level: str) -> None:
    """Sends all log lines to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
