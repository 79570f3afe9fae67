"""What prepare leaves is the same whatever befell it: kills in the middle, any number of threads, a second call."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.workshop import RECORDS, REPOSITORY, Workshop

# One process imports, and forks a child for each preparation: importing takes seconds, preparing a moment.
PROGRAM = """
import json, os, signal, sys, traceback
from pathlib import Path
from transformers import AutoTokenizer
from falcon_trainer.artifacts import read_manifest
from falcon_trainer.data.prepare import prepare
from tests.unit.trainer.workshop import Workshop

MOVES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.chmod")

def run(shop, heads, environment, kill_at):
    os.environ.update(environment)
    count = 0

    def watch(event, arguments):
        # Every step that prepare takes in the run's folder.
        nonlocal count
        if event in MOVES and str(shop.layout.root) in str(arguments[0]):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    result = prepare(shop.config(**heads), shop.beats("prepare"), shop.layout)
    left = sorted(path.name for path in shop.layout.root.iterdir() if path.suffix != ".tmp")
    return {"result": result, "digest": read_manifest(shop.layout.data).digest, "left": left, "steps": count}

def forked(*asked):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, json.dumps(run(*asked)).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(text) if text else {"killed": code == -signal.SIGKILL}

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads do not outlive a fork
asked = json.loads(Path(sys.argv[1]).read_text())
run(Workshop(Path(asked[0][0]).with_name("first")), asked[0][1], {}, 0)  # imports the rest
done = []
for root, heads, environment, share in asked:
    kill_at = round(share * done[0]["steps"]) if share else 0
    done.append(forked(Workshop(Path(root)), heads, environment, kill_at))
Path(sys.argv[2]).write_text(json.dumps(done))
"""

HEADS: dict[str, dict[str, Any]] = {
    "dataset": {"validation": {"fraction": "0.25"}, "onInvalid": "skip", "maxInvalidFraction": "0.2"}
}
Run = tuple[str, dict[str, Any], dict[str, str], float]
"""Workspace, heads of the spec, environment, and at which share of its steps the preparation is killed (0: never)."""


class Preparations:
    """Preparations of the same records by the same model in workspaces of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shop = Workshop(folder)
        shop.put_base()
        shop.put_records(RECORDS.read_text() + "{broken\n" + RECORDS.read_text().splitlines()[0])

    def workspace(self, name: str) -> str:
        """A workshop that shares the records and the model."""
        root = self._folder / name
        root.mkdir()
        (root / "sources").symlink_to(self._folder / "sources")
        return str(root)

    def run(self, runs: list[Run]) -> list[dict[str, Any]]:
        """What each preparation reported, in turn; {"killed": True} of one that was."""
        asked, told, program = (self._folder / name for name in ("asked.json", "told.json", "program.py"))
        asked.write_text(json.dumps(runs))
        program.write_text(PROGRAM)
        sources = {
            "FALCON_SOURCES": str(self._folder / "sources"),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]),
        }
        done = subprocess.run(
            [sys.executable, str(program), str(asked), str(told)],
            env=os.environ | sources,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        found: list[dict[str, Any]] = json.loads(told.read_text())
        assert all("digest" in each or each["killed"] for each in found), done.stdout[-4000:]
        return found


@pytest.fixture(scope="module")
def preparations(tmp_path_factory: pytest.TempPathFactory) -> Preparations:
    return Preparations(tmp_path_factory.mktemp("again"))


THREADS = {
    "threads as the machine has them": {"TOKENIZERS_PARALLELISM": "true"},
    "without threads": {"TOKENIZERS_PARALLELISM": "false"},
    "five threads": {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": "5"},
}
SHARES = tuple(twelfth / 12 for twelfth in range(1, 13))


def test_threads_and_kills_change_nothing_of_what_is_prepared(preparations: Preparations) -> None:
    threads: list[Run] = [
        (preparations.workspace(f"threads{at}"), HEADS, environment, 0)
        for at, environment in enumerate(THREADS.values())
    ]
    other_seed: Run = (preparations.workspace("seed"), HEADS | {"training": {"seed": 1}}, {}, 0)
    roots = [preparations.workspace(f"killed{share}") for share in SHARES]
    killed: list[Run] = [(root, HEADS, {}, share) for root, share in zip(roots, SHARES, strict=True)]
    again: list[Run] = [(root, HEADS, {}, 0) for root in roots]
    told = preparations.run([*threads, other_seed, *killed, *again, again[0]])

    undisturbed, other = told[0], told[len(threads)]
    assert undisturbed["left"] == ["data", "identity.json", "model.json"]
    assert [each["digest"] for each in told[: len(threads)]] == [undisturbed["digest"]] * len(threads)
    assert other["digest"] != undisturbed["digest"]

    *after, only_looks = told[-len(again) - 1 :]
    assert told[len(threads) + 1 : -len(again) - 1] == [{"killed": True}] * len(killed)
    for share, each in [*zip(SHARES, after, strict=True), (None, only_looks)]:
        assert {**each, "steps": 0} == {**undisturbed, "steps": 0}, f"killed at {share} of its steps"
    assert only_looks["steps"] < undisturbed["steps"] / 2
