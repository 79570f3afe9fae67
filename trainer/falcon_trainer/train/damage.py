"""What a person is told of checkpoints that cannot be used."""

import logging
from collections.abc import Callable

from falcon_trainer.beats import Beats
from falcon_trainer.progress import NOTICE_LIMIT, Notice

log = logging.getLogger(__name__)

Tell = Callable[[str], None]
"""Takes one sentence about one checkpoint."""


def teller(beats: Beats) -> Tell:
    """Tells the log at once, and the operator, which makes Events of it, with the next beat and all later ones."""

    def tell(sentence: str) -> None:
        log.warning("%s", sentence)
        beats.notice(Notice(reason="CheckpointDamaged", message=sentence[:NOTICE_LIMIT]))

    return tell
