"""The serving layer's pure parts behind a checked request: stop sequences, health, turns, the form of answers."""

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.serve.answers import Answer, Usage
from falcon_trainer.serve.draining import Draining, Patience
from falcon_trainer.serve.engine import EngineError, _piece
from falcon_trainer.serve.errors import ApiError
from falcon_trainer.serve.health import PROBE_SECONDS, RECENT_SECONDS, Health
from falcon_trainer.serve.stops import StopFilter
from falcon_trainer.serve.turns import Turns

letters = st.text(alphabet="ab", max_size=12)


@given(st.lists(letters, max_size=8), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_a_stop_filter_passes_exactly_what_stands_before_the_first_stop(pieces: list[str], stops: list[str]) -> None:
    stop_filter = StopFilter(stops)
    passed = "".join([*(stop_filter.feed(piece) for piece in pieces), stop_filter.rest()])
    text = "".join(pieces)
    # The stream ends with the piece in which a stop sequence is complete: later pieces never come.
    positions = [text.find(stop) for stop in stops if stop in text]
    if not positions:
        assert (passed, stop_filter.stopped) == (text, False)
    else:
        assert stop_filter.stopped
        assert text.startswith(passed)
        assert not any(stop in passed for stop in stops)
        assert any(text[len(passed) :].startswith(stop) for stop in stops)


def test_only_text_that_may_begin_a_stop_is_held_back() -> None:
    stop_filter = StopFilter(["###"])
    assert [stop_filter.feed(piece) for piece in ("a", "b#", "c", "##", "#d")] == ["a", "b", "#c", "", ""]
    assert stop_filter.stopped


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Watched:
    clock: Clock = field(default_factory=Clock)
    health: Health = field(init=False)

    def __post_init__(self) -> None:
        self.health = Health(Draining(Patience(5, 10, 20), self.clock), clock=self.clock)


def test_readiness_rests_on_tokens_and_nothing_else() -> None:
    watched = Watched()
    assert watched.health.unready() == "the model is being loaded"
    watched.health.asked()
    assert not watched.health.loaded
    watched.health.token()
    assert watched.health.unready() is None
    watched.clock.now += RECENT_SECONDS - 1
    assert watched.health.unready() is None
    watched.clock.now += 1
    assert "no token for 120 s" in (watched.health.unready() or "")
    watched.health.token()
    assert watched.health.unready() is None
    watched.health.draining.begin()
    assert watched.health.unready() == "this server is stopping"


def test_an_idle_engine_is_asked_before_its_readiness_ends() -> None:
    watched = Watched()
    assert watched.health.probe_due()
    watched.health.token()
    assert not watched.health.probe_due()
    watched.clock.now += PROBE_SECONDS
    assert watched.health.probe_due()
    assert PROBE_SECONDS * 2 < RECENT_SECONDS


def test_an_engine_is_stuck_when_it_owes_a_token_for_too_long_and_not_while_it_gives_some_or_is_idle() -> None:
    watched = Watched()
    watched.clock.now += 10_000
    assert watched.health.stuck(900) is None
    watched.health.asked()
    watched.clock.now += 899
    assert watched.health.stuck(900) is None
    watched.health.token()
    watched.clock.now += 899
    assert watched.health.stuck(900) is None
    watched.clock.now += 1
    assert "900 s" in (watched.health.stuck(900) or "")
    watched.health.answered()
    assert watched.health.stuck(900) is None


async def test_turns_come_in_order_and_one_at_a_time_and_beyond_the_limit_clients_are_sent_away() -> None:
    turns = Turns(most_waiting=2)
    order: list[int] = []
    go_on = asyncio.Event()

    async def take(number: int) -> None:
        async with turns.turn():
            order.append(number)
            await go_on.wait()

    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(take(number)))
        await asyncio.sleep(0)
    assert (order, turns.waiting, turns.busy) == ([0], 2, True)
    with pytest.raises(ApiError) as caught:
        await take(3)
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert caught.value.headers() == {"Retry-After": "10"}
    tasks[1].cancel()
    await asyncio.sleep(0)
    assert turns.waiting == 1
    go_on.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2]
    assert not turns.busy


@pytest.mark.parametrize(
    "event", ['{"error": "boom"}', '{"error": "a "quoted" word"}', "[DONE", '{"choices": []}', "[1]", "null"]
)
def test_an_event_of_the_engine_that_is_no_piece_is_its_error(event: str) -> None:
    with pytest.raises(EngineError):
        _piece(event)


def test_answers_have_openais_form() -> None:
    chat = Answer("chat", "m", created=5, id="chatcmpl-1")
    body = chat.whole("hello", "stop", Usage(3, 2))
    assert body["choices"][0] == {
        **{"index": 0, "message": {"role": "assistant", "content": "hello"}},
        **{"logprobs": None, "finish_reason": "stop"},
    }
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    event = json.loads(chat.piece("ü").removeprefix("data: "))
    assert (event["object"], event["choices"][0]["delta"]) == ("chat.completion.chunk", {"content": "ü"})
    text = Answer("completion", "m", created=5)
    assert text.opening() is None
    assert text.id.startswith("cmpl-")
    assert json.loads(text.closing("length").removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
