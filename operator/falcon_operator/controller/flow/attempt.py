"""One attempt of the gang as it is seen now, and how an attempt is started."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import AttemptStatus, ConditionType, TrainingStatus
from falcon_operator.controller.flow import ledger
from falcon_operator.controller.flow.children import Wanting, compare
from falcon_operator.controller.flow.pending import PATIENCE, name_conflict
from falcon_operator.controller.flow.report import Change, Occasion, Report
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.objects import Object, being_deleted, moment, status
from falcon_operator.policy.conditions import Finding, State
from falcon_operator.stages.settings import StageSettings
from falcon_operator.stages.train import train_job
from falcon_trainer.progress import Notice

KEPT_JOBS = 5
"""Jobs of ended attempts that stay, with their pods and logs; older ones go when a new attempt starts."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The newest attempt, and what decisions about it need."""

    snapshot: Snapshot
    run: FalconFineTune
    settings: StageSettings
    now: datetime
    number: int
    """0 before the first attempt."""
    job: Object | None
    record: AttemptStatus | None
    training: TrainingStatus
    support: Wanting
    """The ConfigMap and the Service of the stage."""

    @property
    def book(self) -> AttemptStatus:
        """The record, of an attempt that there is."""
        assert self.record is not None, "attempt 0 has no record"
        return self.record

    @property
    def is_new(self) -> bool:
        """Whether the status does not name it yet."""
        return all(record.attempt != self.number for record in self.run.status.attempts)

    @property
    def since(self) -> datetime | None:
        """When the Job began, or was released the last time."""
        if self.job is None:
            return None
        return moment(status(self.job).get("startTime") or self.job["metadata"]["creationTimestamp"])

    @property
    def nodes(self) -> int:
        """Pods of the gang; those of a Job that exists, whatever the spec says by now."""
        return int(self.job["spec"]["completions"]) if self.job else self.run.spec.gang.nodes

    def report(
        self,
        state: State,
        reason: str,
        message: str,
        *,
        final: bool = False,
        record: AttemptStatus | None = None,
        training: TrainingStatus | None = None,
        facts: Mapping[str, Any] | None = None,
        paused: bool = False,
        delete: tuple[Object, ...] = (),
        change: tuple[Change, ...] = (),
        occasions: tuple[Occasion, ...] = (),
        again: float | None = None,
    ) -> Report:
        """A report that also writes the attempt's record and the training's numbers, and tells of its start the first
        time it is seen, in whatever state that is: a short attempt may be over by then.
        """
        news = ledger.news(record or self.book, self.snapshot.progress)
        entry = ledger.heard(record or self.book, news)
        active = entry.end_time is None and entry.state not in ledger.HELD
        clocked = ledger.clocked(training or self.training, self.since if active else None, self.now)
        numbers = clocked.model_copy(update={"attempt": self.number})
        attempts = ledger.entered(self.run.status.attempts, entry)
        return Report(
            finding=Finding(
                type=ConditionType.TRAINED, status=state, reason=reason, message=message, final=final, paused=paused
            ),
            facts={"attempts": attempts, "training": numbers} | dict(facts or {}),
            write=self.support.write,
            delete=delete,
            change=change,
            occasions=(*self._started(), *map(self._heard, news), *occasions),
            again=again,
        )

    def _heard(self, notice: Notice) -> Occasion:
        identity = f"{self.job['metadata']['uid'] if self.job else self.number}/{notice.reason}/{notice.message}"
        return Occasion(reason=notice.reason, message=notice.message, action="train", warning=True, identity=identity)

    def _started(self) -> Iterator[Occasion]:
        if self.job is None or not self.is_new:
            return
        step = self.training.last_checkpoint_step
        text = f"attempt {self.number} of the gang starts as Job {self.job['metadata']['name']}"
        text += f", from the checkpoint of step {step}" if step else ""
        identity = f"{self.job['metadata']['uid']}/started"
        yield Occasion(reason="AttemptStarted", message=text, action="train", identity=identity)


def start(attempt: Attempt, why: str) -> Report:
    """Creates the Job of the attempt after `attempt`. Its record is written when the Job is seen."""
    job = train_job(attempt.run, attempt.settings, attempt.number + 1)
    wanting = compare(attempt.snapshot, attempt.run, [job])
    if wanting.conflict:
        return name_conflict(ConditionType.TRAINED, wanting.conflict)
    finding = Finding(type=ConditionType.TRAINED, status="Unknown", reason="Starting", message=why)
    writes = () if attempt.support.leaving else (*attempt.support.write, *wanting.write)
    jobs = attempt.snapshot.attempts
    old = tuple(job for number, job in jobs.items() if number <= attempt.number - KEPT_JOBS)
    kept = tuple(job for number, job in jobs.items() if number > attempt.number - KEPT_JOBS)
    return Report(finding=finding, write=writes, delete=old, change=_expiring(attempt, kept), again=PATIENCE)


def _expiring(attempt: Attempt, jobs: Iterable[Object]) -> tuple[Change, ...]:
    """Lets Kubernetes delete finished Jobs of older attempts in time. Never the newest one's: its pods hold the result,
    and its deletion by hand is a person's sign to try again.
    """
    ttl = attempt.run.spec.ttl_seconds_after_finished
    if ttl is None:
        return ()
    field = "ttlSecondsAfterFinished"
    return tuple(Change(job, {field: ttl}) for job in jobs if job["spec"].get(field) != ttl and not being_deleted(job))
