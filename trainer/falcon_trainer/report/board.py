"""The figures as TensorBoard events, one folder for the whole run: `tensorboard --logdir runs/NAME/report/tensorboard`.

A resumed run repeats steps that its predecessor has written already. Its first event says from which step on the older
ones do not count (`purge_step`), which is how TensorBoard knows a restart.
"""

from pathlib import Path
from typing import Any

FOLDER = "tensorboard"
TAGS = {
    "loss": "train/loss",
    "learningRate": "train/learning_rate",
    "gradientNorm": "train/gradient_norm",
    "tokensPerSecond": "throughput/tokens_per_second",
    "mfu": "throughput/mfu",
    "hfu": "throughput/hfu",
    "memoryBytes": "throughput/memory_bytes",
    "epoch": "train/epoch",
    "evaluationLoss": "validation/loss",
    "perplexity": "validation/perplexity",
}
"""Field of metrics.jsonl to tag."""
FLUSH_SECONDS = 30


class Board:
    """Writes events after `resumed_step`."""

    def __init__(self, folder: Path, resumed_step: int) -> None:
        # Here and not above: the import costs every rank half a second, and only rank 0 writes.
        from tensorboardX import SummaryWriter  # type: ignore[import-untyped,unused-ignore]

        path = str(folder / FOLDER)
        self._writer = SummaryWriter(path, purge_step=resumed_step + 1, flush_secs=FLUSH_SECONDS)

    def add(self, line: dict[str, Any]) -> None:
        """The figures of one line of metrics.jsonl."""
        for field, tag in TAGS.items():
            if line.get(field) is not None:
                self._writer.add_scalar(tag, line[field], line["step"])

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
