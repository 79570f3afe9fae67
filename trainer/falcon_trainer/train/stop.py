"""The request to stop: SIGTERM on any rank, agreed on by all of them."""

import signal

from falcon_trainer.train.zero import control_group


class StopRequest:
    """Whether this gang was asked to stop. A rank that acted alone would wait for the others in a collective."""

    def __init__(self) -> None:
        self._asked = False
        self.agreed = False
        """What `agree` found last."""

    def install(self) -> None:
        """From here on SIGTERM means: save at the next place where all ranks can, then end."""
        signal.signal(signal.SIGTERM, self._ask)

    def agree(self) -> bool:
        """Whether any rank was asked. All ranks call."""
        import torch

        asked = torch.tensor(int(self._asked))
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX, group=control_group())
        self.agreed = bool(asked.item())
        return self.agreed

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True
