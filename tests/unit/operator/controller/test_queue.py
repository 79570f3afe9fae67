"""The work queue, in virtual time."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_operator.controller.queue import LAST_RETRY, WorkQueue
from falcon_operator.objects import Key
from tests.unit.operator.controller.virtual_time import run

A, B = Key("ns", "a"), Key("ns", "b")


async def taken_at(queue: WorkQueue) -> tuple[Key, float]:
    key = await queue.get()
    return key, asyncio.get_running_loop().time()


def test_a_key_that_is_added_twice_is_given_once() -> None:
    async def scene() -> int:
        queue = WorkQueue()
        queue.add(A)
        queue.add(A)
        return queue.depth

    assert run(scene()) == 1


def test_a_key_that_changes_while_it_is_worked_on_comes_again_and_not_before() -> None:
    async def scene() -> None:
        queue = WorkQueue()
        queue.add(A)
        assert await queue.get() == A
        queue.add(A)
        assert queue.depth == 0
        queue.done(A)
        assert await queue.get() == A

    run(scene())


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        pytest.param([5.0, 1.0], 1.0, id="a shorter delay brings the look forward"),
        pytest.param([1.0, 5.0], 1.0, id="a longer delay does not postpone it"),
        pytest.param([1.0, 0.0], 0.0, id="no delay is at once"),
    ],
)
def test_the_earliest_time_holds(delays: list[float], expected: float) -> None:
    async def scene() -> tuple[Key, float]:
        queue = WorkQueue()
        for delay in delays:
            queue.add(A, delay)
        return await taken_at(queue)

    key, when = run(scene())
    assert key == A
    assert when == pytest.approx(expected)


def test_a_burst_of_events_is_one_look() -> None:
    async def scene() -> int:
        queue, looks = WorkQueue(), 0
        for _ in range(100):
            queue.add(A, 0.3)
        while queue.depth or not looks:
            await queue.get()
            queue.done(A)
            looks += 1
        return looks

    assert run(scene()) == 1


def test_errors_wait_ever_longer_and_a_success_forgets_them() -> None:
    async def scene() -> list[float]:
        queue = WorkQueue()
        delays = [queue.retry(A) for _ in range(20)]
        queue.forget(A)
        return [*delays, queue.retry(A)]

    delays = run(scene())
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-2] == LAST_RETRY
    assert delays[-1] == 0.2


def test_a_queue_without_a_worker_counts_as_stalled_and_an_empty_one_does_not() -> None:
    async def scene() -> tuple[float, float, float]:
        queue = WorkQueue()
        await asyncio.sleep(100)
        empty = queue.stalled_for
        queue.add(A)
        await asyncio.sleep(7)
        waiting = queue.stalled_for
        await queue.get()
        await asyncio.sleep(3)
        return empty, waiting, queue.stalled_for

    assert run(scene()) == (0.0, 7.0, 3.0)


Step = tuple[str, int, float]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "retry", "sleep"]),
        st.integers(min_value=0, max_value=3),
        st.floats(min_value=0, max_value=10),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps=STEPS, workers=st.integers(min_value=1, max_value=4), work=st.floats(min_value=0, max_value=3))
def test_no_key_has_two_workers_and_no_request_is_lost(steps: list[Step], workers: int, work: float) -> None:
    """Whatever is added, retried, and however long the looks take: a look begins after each request, and never two at
    once for one key.
    """

    async def scene() -> None:
        queue = WorkQueue()
        loop = asyncio.get_running_loop()
        busy: set[Key] = set()
        asked: dict[Key, float] = {}
        began: dict[Key, float] = {}

        async def worker() -> None:
            while True:
                key = await queue.get()
                assert key not in busy, f"two workers on {key}"
                busy.add(key)
                began[key] = loop.time()
                await asyncio.sleep(work)
                busy.discard(key)
                queue.done(key)

        tasks = [asyncio.create_task(worker()) for _ in range(workers)]
        for kind, number, amount in steps:
            key = Key("ns", str(number))
            if kind == "sleep":
                await asyncio.sleep(amount)
            else:
                asked[key] = loop.time()
                queue.retry(key) if kind == "retry" else queue.add(key, amount)
        await asyncio.sleep(LAST_RETRY + 10 + work * (len(steps) + 2))
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results
        assert queue.depth == 0
        assert not busy
        for key, when in asked.items():
            assert began[key] >= when, f"{key} was asked for at {when} and last looked at at {began[key]}"

    run(scene())
