"""The Lease on a real API server; a clock that the test moves stands for time."""

import asyncio

import pytest

from falcon_operator.leadership import LEASE_DURATION, RENEW_DEADLINE, Leadership, LeadershipLostError
from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.integration.api import api_client


class Clock:
    """A monotonic clock."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def waits(candidate: Leadership, seconds: float = 5.0) -> bool:
    """Whether the candidate does not get the Lease in this time (more than two of its tries)."""
    try:
        await asyncio.wait_for(candidate.acquire(), seconds)
    except TimeoutError:
        return True
    return False


async def test_one_holds_and_the_other_waits_until_the_lease_is_released(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with api_client(control_plane.kubeconfig) as api:
        first, second = (Leadership(api, namespace, "lease", name) for name in ("first", "second"))
        await first.acquire()
        assert first.held
        assert await waits(second)
        assert not second.held
        await first.release()
        assert not first.held
        await asyncio.wait_for(second.acquire(), 3)


async def test_a_holder_that_was_frozen_may_not_act_any_more(control_plane: ControlPlane, namespace: str) -> None:
    clock = Clock()
    async with api_client(control_plane.kubeconfig) as api:
        holder = Leadership(api, namespace, "lease", "holder", clock)
        with pytest.raises(LeadershipLostError):
            holder.check()
        await holder.acquire()
        clock.now += RENEW_DEADLINE - 0.1
        holder.check()
        clock.now += 0.2
        with pytest.raises(LeadershipLostError):
            holder.check()


async def test_a_lease_runs_out_by_the_clock_of_the_one_that_waits(
    control_plane: ControlPlane, namespace: str, kubectl: Kubectl
) -> None:
    """The times in the record are another machine's and say nothing: here they lie years ahead."""
    clock = Clock()
    async with api_client(control_plane.kubeconfig) as api:
        await Leadership(api, namespace, "lease", "crashed").acquire()
        patch = '{"spec": {"renewTime": "2099-01-01T00:00:00.000000Z"}}'
        kubectl("-n", namespace, "patch", "lease", "lease", "--type=merge", "-p", patch)
        heir = Leadership(api, namespace, "lease", "heir", clock)
        assert await waits(heir)
        clock.now += LEASE_DURATION + 0.1
        await asyncio.wait_for(heir.acquire(), 5)
        lease = kubectl.get("-n", namespace, "lease", "lease")
        assert lease["spec"]["holderIdentity"] == "heir"
        assert lease["spec"]["leaseTransitions"] == 1


async def test_two_that_find_a_free_lease_do_not_both_get_it(control_plane: ControlPlane, namespace: str) -> None:
    async with api_client(control_plane.kubeconfig) as api:
        rivals = [Leadership(api, namespace, "lease", f"rival-{number}") for number in range(5)]
        tasks = [asyncio.create_task(rival.acquire()) for rival in rivals]
        await asyncio.wait(tasks, timeout=5)
        for task in tasks:
            task.cancel()
        assert [rival.held for rival in rivals].count(True) == 1


async def test_a_holder_notices_that_the_lease_was_taken(
    control_plane: ControlPlane, namespace: str, kubectl: Kubectl
) -> None:
    async with api_client(control_plane.kubeconfig) as api:
        holder = Leadership(api, namespace, "lease", "holder")
        await holder.acquire()
        patch = '{"spec": {"holderIdentity": "thief"}}'
        kubectl("-n", namespace, "patch", "lease", "lease", "--type=merge", "-p", patch)
        with pytest.raises(LeadershipLostError):
            await asyncio.wait_for(holder.keep(), 10)
        assert not holder.held
