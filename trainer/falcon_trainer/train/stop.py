"""The request to stop: SIGTERM on any rank, agreed on by all of them."""

import signal
from dataclasses import replace

from falcon_trainer.train.agreement import Wish, agree

NOTHING_ELSE = Wish()


class StopRequest:
    """Whether this gang was asked to stop. A rank that acted alone would wait for the others in a collective."""

    def __init__(self) -> None:
        self._asked = False
        self.agreed = False
        """What `agree` found last."""

    def install(self) -> None:
        """From here on SIGTERM means: save at the next place where all ranks can, then end."""
        signal.signal(signal.SIGTERM, self._ask)

    def agree(self, others: Wish = NOTHING_ELSE) -> Wish:
        """What all ranks agree on: whether any was asked to stop, and this rank's other wishes. All ranks call."""
        agreed = agree(replace(others, stop=self._asked))
        self.agreed = agreed.stop
        return agreed

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True
