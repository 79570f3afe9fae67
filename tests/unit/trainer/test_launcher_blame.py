"""Which rank of a hung gang is named, and what is told of it."""

from dataclasses import dataclass, field

import pytest

from falcon_trainer.launcher.blame import sentence, suspects
from falcon_trainer.launcher.frames import Frame, Stacks, parse
from falcon_trainer.launcher.hang import Standstill
from falcon_trainer.launcher.pulse import GONE, Pulse
from tests.unit.trainer.pulses import phase, train

DUMP = """\
Thread 0x00007f1 (most recent call first):
  <no Python frame>

Thread 0x00007f2 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 327 in wait
  File "/usr/lib/python3.11/site-packages/tqdm/_monitor.py", line 60 in run

Current thread 0x00007f3 (most recent call first):
  File "/site-packages/torch/distributed/distributed_c10d.py", line 2810 in all_reduce
  File "/site-packages/torch/distributed/c10d_logger.py", line 81 in wrapper
  File "/app/falcon_trainer/train/stop.py", line 27 in agree
  File "/app/falcon_trainer/train/loop.py", line 76 in on_step_end
"""
LOOPS = Stacks(((Frame("/app/falcon_trainer/data/store.py", 12, "row"),),))
ELSEWHERE = Stacks(((Frame("/usr/lib/python3.11/json/decoder.py", 9, "decode"),),))


def test_the_main_thread_is_the_last_one_and_tells_where_it_waits_and_from_where_in_this_product() -> None:
    waits = parse(DUMP)
    assert [len(thread) for thread in waits.threads] == [0, 2, 4]
    assert waits.in_collective
    assert not LOOPS.in_collective
    assert str(waits) == "in all_reduce (distributed_c10d.py:2810), called from agree (stop.py:27)"
    assert str(LOOPS) == "in row (store.py:12)"
    assert str(parse("")) == "outside Python"


@pytest.mark.parametrize(
    ("innermost", "waits"),
    {
        "ZeRO-3 waits for a parameter": ("/deepspeed/runtime/zero/partition_parameters.py", True),
        "torch's own collective": ("/torch/distributed/distributed_c10d.py", True),
        "the forward pass": ("/torch/nn/modules/linear.py", False),
        "the data": ("/torch/utils/data/dataloader.py", False),
    }.values(),
)
def test_a_rank_waits_for_the_others_where_its_innermost_frame_is(innermost: str, waits: bool) -> None:
    stack = (Frame(innermost, 7, "f"), Frame("/deepspeed/runtime/zero/partition_parameters.py", 9, "wrapped"))
    assert Stacks((stack,)).in_collective is waits


@pytest.mark.parametrize("text", [DUMP[:300], "File", "Thread (most recent call first):\n  File", "\n" * 9])
def test_a_dump_that_was_cut_is_read_as_far_as_it_goes(text: str) -> None:
    assert len(parse(text).main) <= 2


@dataclass(frozen=True, kw_only=True)
class Blame:
    pulses: tuple[Pulse, ...] = (train(0), train(1), train(2))
    stacks: dict[int, Stacks] = field(default_factory=dict)
    expected: dict[int, str]


WAITS = parse(DUMP)
BLAMES = {
    "a stopped rank, whatever the stacks say": Blame(
        pulses=(train(0), train(1, state="T"), train(2, 6)), stacks={0: LOOPS}, expected={1: "is stopped (SIGSTOP)"}
    ),
    "a rank that is gone": Blame(pulses=(train(0), train(1, state=GONE)), expected={1: "is gone"}),
    "a rank in the kernel": Blame(pulses=(train(0), train(1, state="D")), expected={1: "is stuck in the kernel"}),
    "a rank that is a step behind": Blame(pulses=(train(0), train(1, 6)), expected={1: "is behind, in phase train"}),
    "ranks that still load": Blame(
        pulses=(train(0, 0), phase("load", 9, 1), phase("load", 9, 2)), expected={1: "phase load", 2: "phase load"}
    ),
    "a rank that does not wait in a collective": Blame(
        stacks={0: WAITS, 1: LOOPS, 2: WAITS}, expected={1: "does not wait for the others: it is in row (store.py:12)"}
    ),
    "a rank that differs from all others, where collectives return at once": Blame(
        stacks={0: LOOPS, 1: LOOPS, 2: ELSEWHERE}, expected={2: "is alone in what it does: it is in decode"}
    ),
    "of two that differ nobody knows which": Blame(stacks={0: LOOPS, 1: ELSEWHERE}, expected={}),
    "all wait": Blame(stacks={0: WAITS, 1: WAITS, 2: WAITS}, expected={}),
    "nobody answers": Blame(expected={}),
    "a rank that has ended is not waited for": Blame(pulses=(train(0), train(1, 3, ended=True)), expected={}),
}


@pytest.mark.parametrize("case", BLAMES.values(), ids=BLAMES)
def test_the_surest_sign_names_the_rank_that_holds_the_others_up(case: Blame) -> None:
    found = {suspect.rank: suspect.why for suspect in suspects(case.pulses, case.stacks)}
    assert list(found) == list(case.expected)
    assert all(words in found[rank] for rank, words in case.expected.items())


def test_what_is_told_of_a_hang_fits_a_termination_message_however_many_ranks_there_are() -> None:
    places = {rank: Stacks(((Frame(f"/app/{'x' * 200}/file{rank}.py", rank, "f" * 80),),)) for rank in range(64)}
    still = Standstill(seconds=301, limit=300, phase="train", step=9)
    found = suspects([train(rank, 6) for rank in range(63)] + [train(63)], places)
    said = sentence(still, found, places, configured=False, kept="stacks: somewhere")
    assert len(said) < 3000
    assert said.startswith("No step has ended for 301 s in phase train after step 9 (limit 300 s). Rank 0 is behind")


def test_ranks_that_do_the_same_are_told_of_together() -> None:
    still = Standstill(seconds=61, limit=60, phase="train", step=9)
    said = sentence(still, [], {0: WAITS, 1: WAITS, 2: LOOPS}, configured=True, kept="stacks: here")
    assert "(limit 60 s, gang.hangTimeout). No rank of this pod stands out" in said
    assert "Ranks 0, 1 are in all_reduce (distributed_c10d.py:2810), called from agree (stop.py:27); rank 2 is" in said
