"""`falcon-trainer` as a process: exit codes and the outcome it leaves for its launcher."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from falcon_trainer.endings import Ending
from falcon_trainer.told import read_config
from tests.unit.trainer.launcher_pod import CONFIG

# The stage is the test's, everything around it is real.
DRIVER = """
import sys
from falcon_trainer import cli
exec(open(sys.argv[1]).read())
cli.STAGES["prepare"] = (lambda: stage, "")
cli.main(["prepare", "--config", sys.argv[2]])
"""


def run(folder: Path, body: str, *, config: str | None = None, **env: str) -> tuple[int, Ending | None, str]:
    """Exit code, ending and stderr of `falcon-trainer prepare` whose stage is a function with this body."""
    (folder / "stage.py").write_text("def stage(config, beats, layout):\n    " + body.replace("\n", "\n    "))
    (folder / "run.json").write_text(json.dumps(CONFIG) if config is None else config)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder / "stage.py"), str(folder / "run.json")],
        env=os.environ | {"FALCON_RUNTIME": str(folder / "runtime")} | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = folder / "runtime" / f"outcome-{env.get('RANK', '0')}.json"
    return done.returncode, Ending.model_validate_json(told.read_text()) if told.exists() else None, done.stderr


def test_the_result_of_a_stage_is_its_outcome(tmp_path: Path) -> None:
    body = "beats.update('check', step=1)\nreturn {'run': config.run, 'root': str(layout.root)}"
    code, ending, _ = run(tmp_path, body, FALCON_WORKSPACE="/w", RANK="3")
    assert code == 0
    assert ending is not None
    assert (ending.code, ending.rank, ending.outcome.reason) == (0, 3, "Completed")
    assert ending.outcome.result == {"run": "tiny", "root": "/w/runs/tiny"}
    assert (tmp_path / "runtime" / "beat-3.json").exists()


FAILURES = {
    "a StageError keeps its code, reason, sentence and step": (
        "from falcon_trainer.outcome import ExitCode, StageError\n"
        "raise StageError(ExitCode.DATA, 'BrokenRecord', 'dolly.jsonl line 7: no response', step=2)",
        (65, "BrokenRecord", False),
        "dolly.jsonl line 7",
    ),
    "a StageError inside another exception is found": (
        "from falcon_trainer.outcome import ExitCode, StageError\n"
        "raise RuntimeError('in a worker') from StageError(ExitCode.DATA, 'BrokenRecord', 'line 7')",
        (65, "BrokenRecord", False),
        "line 7",
    ),
    "an unknown exception shows its last line": (
        "raise ValueError('long story\\nthe point')",
        (70, "InternalError", True),
        "ValueError: the point",
    ),
    "a full disk": (
        f"raise OSError({errno.ENOSPC}, 'No space left on device', '/workspace/x')",
        (73, "DiskFull", False),
        "/workspace/x",
    ),
    "a full disk as safetensors tells it": (
        "raise Exception('Error while serializing: I/O error: No space left on device (os error 28)')",
        (73, "DiskFull", False),
        "space",
    ),
    "a volume that is read-only": (f"raise OSError({errno.EROFS}, 'ro', '/w')", (73, "ReadOnlyVolume", False), "/w"),
    "a volume of another user": (f"raise OSError({errno.EACCES}, 'no', '/w')", (77, "PermissionDenied", False), "/w"),
    "no memory": ("raise MemoryError()", (70, "OutOfMemory", True), "memory limit"),
    "no GPU memory": (
        "import torch\nraise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20 GiB')",
        (70, "OutOfGpuMemory", True),
        "microBatchSize",
    ),
    "a stage that calls exit(0) has not completed": (
        "import sys\nsys.exit(0)",
        (70, "InternalError", True),
        "SystemExit",
    ),
    "a person's Ctrl-C": ("raise KeyboardInterrupt", (143, "Stopped", True), "stopped"),
}


@pytest.mark.parametrize(("body", "expected", "named"), FAILURES.values(), ids=FAILURES)
def test_a_failure_becomes_exit_code_and_outcome(
    tmp_path: Path, body: str, expected: tuple[int, str, bool], named: str
) -> None:
    code, ending, _ = run(tmp_path, body)
    assert ending is not None
    assert (code, ending.outcome.reason, ending.outcome.retryable) == expected
    assert ending.code == code
    assert named in ending.outcome.message


def test_the_traceback_of_an_unknown_exception_is_in_the_log(tmp_path: Path) -> None:
    _, _, log = run(tmp_path, "raise ValueError('the point')")
    assert "Traceback" in log
    assert 'stage.py", line' in log or "in stage" in log


def test_a_rank_that_fails_does_not_wait_for_its_threads(tmp_path: Path) -> None:
    body = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\nraise ValueError('x')"
    assert run(tmp_path, body)[0] == 70


def test_sigterm_ends_a_rank_by_its_default_action(tmp_path: Path) -> None:
    code, ending, _ = run(tmp_path, "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)")
    assert (code, ending) == (-signal.SIGTERM, None)


def test_a_broken_configuration_names_the_field(tmp_path: Path) -> None:
    code, ending, _ = run(tmp_path, "return {}", config=json.dumps(CONFIG | {"lora": {"rank": 0}}))
    assert code == 64
    assert ending is not None
    assert "lora.rank" in ending.outcome.message


def test_a_configuration_written_by_hand_may_be_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("run: r\nnamespace: n\nmodel: {source: pvc://m/x}\ndataset: {sources: [{uri: pvc://d/x}]}\n")
    assert read_config(path).run == "r"


def test_generate_by_hand_inside_a_pod_leaves_the_outcome_of_its_stage_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(CONFIG))
    command = [sys.executable, "-m", "falcon_trainer.cli", "generate", "--config", str(tmp_path / "run.json"), "Why?"]
    env = os.environ | {"FALCON_RUNTIME": str(tmp_path / "runtime"), "FALCON_WORKSPACE": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 66, done.stderr
    assert "generate failed" in done.stderr
    assert not (tmp_path / "runtime").exists()


def test_without_a_stage_the_stages_are_listed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "falcon_trainer.cli", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert all(stage in done.stdout for stage in ("prepare", "train", "merge", "serve", "evaluate"))
