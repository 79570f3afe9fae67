"""The alias: which of the runs that share a name answers to it.

Each of them elects from what it sees and writes the name's Service where that leads to another one, so a run that is
suspended, or drops the name, hands it on by itself. A run that is gone leaves its share in the Service to those that it
belongs to as well (`heirs`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from falcon_operator.api.names import ALIAS_LABEL, HASH_ANNOTATION, KIND, RUN_LABEL
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import ConditionType
from falcon_operator.controller.flow.pending import PATIENCE, STOPPING, name_conflict
from falcon_operator.controller.flow.report import Occasion, Report
from falcon_operator.controller.flow.snapshot import Reference, Snapshot
from falcon_operator.objects import Key, Object, annotations, being_deleted, holds, labels, moment, status, uid
from falcon_operator.policy.alias import Claimant, holder
from falcon_operator.stages.alias import alias_service
from falcon_operator.stages.manifest import MANAGED_BY, Manifest

SERVING = ConditionType.SERVING


def aliases(run: FalconFineTune) -> tuple[str, ...]:
    """The names that the run may answer to by now, or answers to still."""
    return tuple(sorted({name for name in (_claimed(run), run.status.alias) if name}))


def with_alias(snapshot: Snapshot, reports: Sequence[Report]) -> list[Report]:
    """The reports of a look, with what they mean for the alias added to the one of the server."""
    run = snapshot.run
    if run is None or not reports[0].finding.done or not aliases(run):
        return list(reports)
    places = [place for place, report in enumerate(reports) if report.finding.type is SERVING]
    place = places[0] if places else len(reports) - 1
    report = reports[place]
    held, claimed = run.status.alias, _claimed(run)
    if held and held != claimed:
        told = _hand_on(snapshot, run, report, held)
    else:
        assert claimed, "aliases names no other"
        told = _elect(snapshot, run, report, claimed)
    return [*reports[:place], told, *reports[place + 1 :]]


def heirs(service: Object, gone: Key) -> list[Key]:
    """The runs that must elect anew when the run `gone` does not exist any more."""
    return [key for key in owners(service) if key != gone]


def owners(obj: Object) -> list[Key]:
    """The runs that an object belongs to."""
    metadata = obj["metadata"]
    named = [each["name"] for each in metadata.get("ownerReferences") or [] if each["kind"] == KIND]
    return [Key(metadata["namespace"], name) for name in named]


def _claimed(run: FalconFineTune) -> str | None:
    serve = run.spec.serve
    return serve.alias if serve.enabled and run.status.merged is not None else None


def _hand_on(snapshot: Snapshot, run: FalconFineTune, report: Report, alias: str) -> Report:
    """A name that the run does not want any more: told of until it is seen to lead elsewhere."""
    service = _service(snapshot, alias)
    if service is None or not _ours(service, alias) or _leads_to(service) != run.name:
        return replace(report, facts={**report.facts, "alias": None}, again=0.0)
    others = list(_others(snapshot, run, alias))
    report = replace(report, again=_sooner(report.again, STOPPING))
    return _led(report, service, alias, run, others, holder(others, None))


def _elect(snapshot: Snapshot, run: FalconFineTune, report: Report, alias: str) -> Report:
    service = _service(snapshot, alias)
    answers = report.finding.type is SERVING and report.finding.done
    if service is not None and not _ours(service, alias):
        return _conflict(report, alias) if answers else report
    claimants = [*_others(snapshot, run, alias), *_own(run, answers=answers)]
    elected = holder(claimants, _leads_to(service) if service else None)
    mine = elected is not None and elected.name == run.name
    report = replace(report, facts={**report.facts, "alias": alias if mine else None})
    if mine and run.status.alias != alias:
        report = replace(report, occasions=(*report.occasions, _taken(alias, service)))
    return _led(report, service, alias, run, claimants, elected)


def _led(
    report: Report,
    service: Object | None,
    alias: str,
    run: FalconFineTune,
    claimants: Sequence[Claimant],
    elected: Claimant | None,
) -> Report:
    """The report with what leads the name to the elected one: the Service goes where nobody may have the name."""
    if service is not None and being_deleted(service):
        return replace(report, again=_sooner(report.again, STOPPING))
    if elected is None:
        return replace(report, delete=(*report.delete, service)) if service else report
    wanted = alias_service(run.namespace, alias, elected, claimants)
    if service is not None and _same(service, wanted):
        return report
    return replace(report, write=(*report.write, wanted))


def _own(run: FalconFineTune, *, answers: bool) -> Iterator[Claimant]:
    created = run.metadata.creation_timestamp
    assert created, "the API server dates every object"
    if answers or run.status.endpoint:
        yield Claimant(
            name=run.name, uid=run.metadata.uid, created=created, serving=answers, suspended=run.spec.suspend
        )


def _others(snapshot: Snapshot, run: FalconFineTune, alias: str) -> Iterator[Claimant]:
    """The other runs of the namespace that have the name and have answered before."""
    for other in snapshot.runs:
        serve = other["spec"].get("serve") or {}
        claims = serve.get("alias") == alias and serve.get("enabled", True) and "endpoint" in status(other)
        if claims and other["metadata"]["name"] != run.name and not being_deleted(other):
            yield Claimant(
                name=other["metadata"]["name"],
                uid=uid(other),
                created=moment(other["metadata"]["creationTimestamp"]),
                serving=_answers(other),
                suspended=bool(other["spec"].get("suspend")),
            )


def _answers(run: Object) -> bool:
    """Whether the server answers as the spec asks for: one whose spec was changed a moment ago, to have this name say,
    does not know it yet, and one whose spec is refused stays as it was.
    """
    serving = holds(run, SERVING) if holds(run, ConditionType.ACCEPTED) else None
    return serving is not None and serving.get("observedGeneration") == run["metadata"].get("generation")


def _service(snapshot: Snapshot, alias: str) -> Object | None:
    return snapshot.objects.get(Reference("Service", alias))


def _ours(service: Object, alias: str) -> bool:
    wanted = MANAGED_BY | {ALIAS_LABEL: alias}
    return wanted.items() <= labels(service).items()


def _leads_to(service: Object) -> str | None:
    found: str | None = (service["spec"].get("selector") or {}).get(RUN_LABEL)
    return found


def _same(service: Object, wanted: Manifest) -> bool:
    hashes = (annotations(each).get(HASH_ANNOTATION) for each in (service, wanted))
    return len(set(hashes)) == 1 and service["spec"].get("selector") == wanted["spec"]["selector"]


def _conflict(report: Report, alias: str) -> Report:
    """The server is left as it is, but the run is not where its spec wants it to be."""
    text = f"serve.alias: Service {alias} exists already and was made by somebody else: delete or rename it, or choose "
    conflict = name_conflict(SERVING, f"{text}another alias. The model answers under the run's own name")
    return replace(report, finding=conflict.finding, again=_sooner(report.again, PATIENCE))


def _taken(alias: str, service: Object | None) -> Occasion:
    before = _leads_to(service) if service else None
    since = service["metadata"].get("resourceVersion") if service else "new"
    text = f"the alias {alias} leads to this run now" + (f", and not to {before} any more" if before else "")
    return Occasion(reason="AliasTaken", message=text, action="serve", identity=f"alias/{alias}/{since}")


def _sooner(again: float | None, other: float) -> float:
    return other if again is None else min(again, other)
