"""How each stage is started: its command line and its environment. Pure."""

import sys
from collections.abc import Mapping, Sequence

from falcon_trainer.config import RunConfig
from falcon_trainer.launcher.settings import Settings
from falcon_trainer.layout import RENDEZVOUS_PORT
from falcon_trainer.outcome import ExitCode, StageError

LOOPBACK = "127.0.0.1"
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""torch's setting for large tensors on the host: aligned to huge pages, and where the kernel allows it made of them.
glibc reuses such blocks, where it would leave holes between others. Above the loaded model, the small Falcon of
bench/step.py peaked at 1,119 to 1,320 MB without it and at 800 to 887 MB with it (three runs each)."""
RANK_MODULE = "falcon_trainer.cli"
AGENT_MODULE = "falcon_trainer.launcher.agent"


def stage_command(
    stage: str,
    config: RunConfig,
    settings: Settings,
    *,
    module: str = RANK_MODULE,
    agent: str = AGENT_MODULE,
    port: int = RENDEZVOUS_PORT,
) -> list[str]:
    """The command line of `stage`; for train, torchrun with this pod's ranks.

    Raises StageError where this pod's place in the gang is missing.
    """
    if stage != "train":
        return [sys.executable, "-m", module, stage]
    return [
        *(sys.executable, "-m", agent),
        *("--nnodes", str(config.gang.nodes), "--node-rank", str(settings.node_rank)),
        *("--nproc-per-node", str(config.gang.processes)),
        *("--master-addr", rendezvous_address(config, settings), "--master-port", str(port)),
        # A restart is the operator's, of the whole gang: ranks of one pod restarted alone would never meet the others.
        *("--max-restarts", "0"),
        *("-m", module, stage),
    ]


def rendezvous_address(config: RunConfig, settings: Settings) -> str:
    """Where rank 0 listens; a gang of one pod needs no name service."""
    if config.gang.nodes == 1:
        return LOOPBACK
    if settings.node_rank >= config.gang.nodes:
        raise StageError(
            ExitCode.CONFIGURATION,
            "InvalidConfiguration",
            f"JOB_COMPLETION_INDEX is {settings.node_rank}, but gang.nodes is {config.gang.nodes}",
        )
    if settings.rendezvous_host is None:
        raise StageError(
            ExitCode.CONFIGURATION,
            "InvalidConfiguration",
            f"FALCON_RENDEZVOUS_HOST must name rank 0's pod, because gang.nodes is {config.gang.nodes}",
        )
    return settings.rendezvous_host


def local_ranks(stage: str, config: RunConfig, settings: Settings) -> range:
    """Global ranks of the processes of this pod."""
    if stage != "train":
        return range(1)
    first = settings.node_rank * config.gang.processes
    return range(first, first + config.gang.processes)


def stage_environment(
    stage: str, config: RunConfig, settings: Settings, inherited: Mapping[str, str], cpus: int
) -> dict[str, str]:
    """The environment of the stage; what the pod or the image sets itself is kept."""
    processes = config.gang.processes if stage == "train" else 1
    gpus = {"train": config.gang.gpus_per_node, "serve": config.serve.gpus}.get(stage, 0)
    defaults = {
        "HOME": "/tmp",  # uid 65532 has none, and the root file system is read-only
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        # The threads of the cgroup, not of the machine: torch would start one for each core of the node.
        "OMP_NUM_THREADS": str(max(1, cpus // processes)),
        # torchrun would kill its ranks this long after SIGTERM. That is the launcher's to decide: it can tell its own
        # doing from what happened to a rank.
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(int(settings.grace_seconds) + 60),
    }
    if stage == "train":
        defaults |= HUGE_PAGES
    if stage != "prepare":
        defaults |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if gpus == 0:
        defaults |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return defaults | dict(inherited)


def without_empty(env: Mapping[str, str], names: Sequence[str] = ("HOME",)) -> dict[str, str]:
    """`env` without `names` that are set to nothing: container runtimes set HOME to / or to an empty string."""
    return {name: value for name, value in env.items() if name not in names or value not in {"", "/"}}
