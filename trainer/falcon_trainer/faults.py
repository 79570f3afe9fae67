"""Which exceptions mean something that a person can act on, although no stage raised a StageError."""

import errno
import re

from falcon_trainer.outcome import ExitCode, StageError

LOST_PEER = re.compile(
    r"Connection (closed|reset|refused)( by peer)?|Broken pipe"
    r"|ncclRemoteError|ncclSystemError|NCCL communicator was aborted|remote process exited or there was a network error"
    r"|Watchdog caught collective operation timeout|Timed out waiting \d+ms for (recv|send) operation"
    r"|Socket Timeout|wait timeout after \d+ms|failed to recv, got 0 bytes|The client socket has timed out",
    re.IGNORECASE,
)
"""What gloo, NCCL and TCPStore say when the other end of a collective is gone. Seen with torch 2.13 and gloo:
"Connection closed by peer"; the NCCL texts are from its source, not run on a GPU. A CUDA fault of this rank is not
among them."""

LOST_PEER_TYPES = frozenset({"DistBackendError", "DistNetworkError", "DistStoreError"})
"""Exceptions of torch.distributed, by name: this module must not import torch."""


def speaks_of_lost_peer(text: str) -> bool:
    """Whether a rank's last words say that it was another rank that went away."""
    return LOST_PEER.search(text) is not None


def understand(error: BaseException, stage: str) -> StageError:
    """The StageError that says what `error` means; an unknown one is an InternalError (exit code 70)."""
    if isinstance(error, StageError):
        return error
    if isinstance(error.__cause__, StageError):
        return error.__cause__
    known = _of_storage(error) or _of_memory(error) or (_of_gang(error) if stage == "train" else None)
    return known or StageError(
        ExitCode.INTERNAL,
        "InternalError",
        f"{stage} ended with an error that it does not know: {_summary(error)}. The traceback is in the pod's log",
    )


def _of_storage(error: BaseException) -> StageError | None:
    code = error.errno if isinstance(error, OSError) else None
    # safetensors and torch report the system's error as text only.
    if code in {errno.ENOSPC, errno.EDQUOT} or "No space left on device" in str(error):
        return StageError(
            ExitCode.CANNOT_WRITE,
            "DiskFull",
            f"no space left to write {_place(error)}: make the volume larger or delete what is not needed; "
            "finished artefacts are whole and the run goes on from them",
        )
    if code == errno.EROFS:
        return StageError(ExitCode.CANNOT_WRITE, "ReadOnlyVolume", f"{_place(error)} is on a read-only file system")
    if code in {errno.EACCES, errno.EPERM}:
        return StageError(
            ExitCode.NO_PERMISSION,
            "PermissionDenied",
            f"no permission for {_place(error)}: the volume must be open to the pod's user or group (fsGroup)",
        )
    return None


def _of_memory(error: BaseException) -> StageError | None:
    if isinstance(error, MemoryError):
        return StageError(
            ExitCode.INTERNAL, "OutOfMemory", f"not enough memory: {_summary(error)}. Raise the pod's memory limit"
        )
    if type(error).__name__ == "OutOfMemoryError" or "CUDA out of memory" in str(error):
        return StageError(
            ExitCode.INTERNAL,
            "OutOfGpuMemory",
            f"not enough GPU memory: {_summary(error)}. Lower training.microBatchSize or dataset.sequenceLength, "
            "use more GPUs, or set training.deepspeed.offloadOptimizer and offloadParameters to cpu",
        )
    return None


def _of_gang(error: BaseException) -> StageError | None:
    if type(error).__name__ in LOST_PEER_TYPES or (isinstance(error, RuntimeError) and speaks_of_lost_peer(str(error))):
        return StageError(
            ExitCode.TRY_AGAIN,
            "RankLost",
            f"another rank of the gang went away or stopped answering: {_summary(error)}",
        )
    return None


def _summary(error: BaseException) -> str:
    """Type and last line: long C++ traces come first in the texts of torch's errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[-1:]])[:1000]


def _place(error: BaseException) -> str:
    name = error.filename if isinstance(error, OSError) else None
    return str(name) if name else "a file"
