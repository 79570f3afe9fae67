"""What the answers show: how many differ from the base's, and one of them in a sentence. Pure."""

from collections.abc import Sequence

from pydantic import JsonValue

from falcon_trainer.evaluate.questions import Question
from falcon_trainer.report.samples import CUT, Sample

SHOWN = 100
"""Characters of a text in the sentence."""


def differs(before: str | None, served: str | None) -> bool | None:
    """Whether two answers differ as far as both are known; None where one of them is not.

    White space around an answer does not count, nor half a character where it was cut: servers strip and decode those
    differently.
    """
    if before is None or served is None:
        return None
    (old, old_cut), (new, new_cut) = _known(before), _known(served)
    if (old_cut and not old) or (new_cut and not new):
        return None
    return not (old == new or (old_cut and new.startswith(old)) or (new_cut and old.startswith(new)))


def evaluation(merged: str, questions: Sequence[Question], samples: Sequence[Sample]) -> dict[str, JsonValue]:
    """The figures as the status shows them (EvaluationStatus); `merged` is the digest of the model that answered."""
    return {
        "merged": merged,
        "prompts": len(samples),
        "answered": sum(sample.served is not None for sample in samples),
        "changed": sum(differs(sample.before, sample.served) is True for sample in samples),
        "message": sentence(questions, samples),
    }


def sentence(questions: Sequence[Question], samples: Sequence[Sample]) -> str:
    """One answer, a changed one where there is one, beside the base's."""
    if not samples:
        return "No stored prompt could be asked."
    answered = [pair for pair in zip(questions, samples, strict=True) if pair[1].served is not None]
    if not answered:
        return "The endpoint refused every stored prompt; the report says why."
    question, sample = max(answered, key=lambda pair: _telling(pair[1]))
    said = f"{_quoted(question.short)} is answered with {_quoted(sample.served)}"
    if sample.before is None:
        return f"{said}; the base was not asked."
    return f"{said}, by the base with {_quoted(sample.before)}."


def _telling(sample: Sample) -> int:
    changed = differs(sample.before, sample.served)
    return 2 if changed else 1 if changed is False else 0


def _known(text: str) -> tuple[str, bool]:
    """What is known of an answer, and whether it would have gone on."""
    whole = text.removesuffix(CUT)
    cut = whole != text
    return (whole.rstrip("\ufffd") if cut else whole).strip(), cut


def _quoted(text: str | None) -> str:
    """The beginning of a text on one line, cut by characters: Chinese has no spaces to cut at."""
    whole = " ".join((text or "").split())
    return f'"{whole if len(whole) <= SHOWN else whole[: SHOWN - len(CUT)].rstrip() + CUT}"'
