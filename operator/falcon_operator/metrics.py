"""What the operator counts, in the format of Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

from falcon_operator.api.status import FalconFineTuneStatus
from falcon_operator.objects import Key

RUNS = Gauge("falcon_runs", "Runs by the stage they are in.", ["stage"])
QUEUE_DEPTH = Gauge("falcon_queue_depth", "Runs that are due for a look and wait for a worker.")
RECONCILE_SECONDS = Histogram(
    "falcon_reconcile_seconds",
    "Time of one look at a run, from reading the API to the last write.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
)
RECONCILE_ERRORS = Counter("falcon_reconcile_errors", "Looks at a run that ended in an error and are tried again.")
ATTEMPTS = Counter("falcon_training_attempts_started", "Gang attempts that were seen to start.")
ENDED = Counter("falcon_training_attempts_ended", "Gang attempts that ended.", ["state", "reason"])
API_CALLS = Counter("falcon_api_calls", "Requests to the API server.", ["verb", "code"])
LEADER = Gauge("falcon_leader", "1 while this replica holds the lease.")

_stages: dict[Key, str] = {}


def follow(key: Key, old: FalconFineTuneStatus, new: FalconFineTuneStatus | None) -> None:
    """Counts what a look found: `new` is what it wrote, if anything."""
    _move(key, (new or old).stage or "Pending")
    if new is None:
        return
    before = {record.attempt: record for record in old.attempts}
    for record in new.attempts:
        was = before.get(record.attempt)
        if was is None:
            ATTEMPTS.inc()
        if record.end_time is not None and (was is None or was.end_time is None):
            ENDED.labels(state=record.state, reason=record.reason or "Completed").inc()


def forget(key: Key) -> None:
    """The run is gone."""
    if stage := _stages.pop(key, None):
        RUNS.labels(stage=stage).dec()


def _move(key: Key, stage: str) -> None:
    if _stages.get(key) == stage:
        return
    forget(key)
    _stages[key] = stage
    RUNS.labels(stage=stage).inc()
