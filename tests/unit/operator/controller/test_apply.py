"""What becomes of a plan whose writes are not all taken."""

from typing import Any

import pytest

from falcon_operator.controller.apply import Applier, ChildRefusedError
from falcon_operator.controller.flow.report import Plan
from falcon_operator.controller.kube import ApiError
from falcon_operator.controller.observe import Observation
from falcon_operator.objects import Object
from tests.unit.operator.controller.snapshots import ORDER, run_at, snapshot, stage_objects


class Refusing:
    """An API that refuses objects of some names, as a quota or an admission policy does."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.written = refused, list[str]()

    async def create(self, obj: Object) -> Object:
        name = f"{obj['kind']}/{obj['metadata']['name']}"
        if name in self.refused:
            raise ApiError(403, "exceeded quota", f"POST {name}")
        self.written.append(name)
        return obj

    apply = create


def applier(kube: Any) -> Applier:
    return Applier(kube, "operator-0")


RUN = run_at(ORDER[:4])
RAW = {"apiVersion": "v1", "kind": "FalconFineTune", "metadata": {"name": "r", "namespace": "ml", "uid": "u"}}
SEEN = Observation(RAW, snapshot(RUN))
PLAN = Plan(write=(*stage_objects(RUN, "evaluate"), *stage_objects(RUN, "serve")))


async def test_a_refused_job_holds_up_nothing_behind_it() -> None:
    kube = Refusing("Job/r-evaluate")
    operator = applier(kube)
    with pytest.raises(ChildRefusedError, match="refuses Job r-evaluate"):
        await operator.apply(SEEN, PLAN)
    assert {"Service/r-serve", "Deployment/r-serve"} <= set(kube.written)
    assert "refuses Job r-evaluate" in str(operator.refusal(RAW))


async def test_the_first_refusal_is_told_until_nothing_is_refused() -> None:
    kube = Refusing("Job/r-evaluate", "Deployment/r-serve")
    operator = applier(kube)
    with pytest.raises(ChildRefusedError, match="Job r-evaluate"):
        await operator.apply(SEEN, PLAN)
    kube.refused = ()
    assert await operator.apply(SEEN, PLAN)
    assert operator.refusal(RAW) is None
