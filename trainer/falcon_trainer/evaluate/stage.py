"""The evaluate stage: asks, compares, and puts the answers into the report."""

import os

from pydantic import JsonValue

from falcon_trainer.beats import Beats
from falcon_trainer.config import RunConfig
from falcon_trainer.evaluate.comparison import evaluation
from falcon_trainer.evaluate.endpoint import PATIENCE_SECONDS, Endpoint, Reply
from falcon_trainer.evaluate.questions import Question, read_questions
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.report.drawing import Drawing
from falcon_trainer.serve.authorization import told_key


def evaluate(
    config: RunConfig, beats: Beats, layout: RunLayout, *, patience: float = PATIENCE_SECONDS
) -> dict[str, JsonValue]:
    """Asks the served model the stored prompts; `patience` in seconds for each. Raises StageError.

    The report is written once, when every answer is there: an evaluation that breaks off changes nothing.
    """
    beats.update("check")
    if config.merged is None or config.endpoint is None:
        raise StageError(
            ExitCode.CONFIGURATION,
            "InvalidConfiguration",
            "The run configuration names no merged model, or no endpoint, to evaluate.",
        )
    samples, questions = read_questions(layout)
    key = told_key(os.environ)
    with Endpoint(
        config.endpoint, config.run, key, patience=patience, say=lambda said: beats.update("ask", message=said[:256])
    ) as endpoint:
        replies = [_ask(endpoint, question, number, beats) for number, question in enumerate(questions, start=1)]
    beats.update("report")
    texts, problems = [reply.text for reply in replies], [reply.problem for reply in replies if reply.problem]
    told = samples.as_served(config.merged.digest, texts, problems)
    told.write(layout.report)
    Drawing(layout.root).finish()
    return {"evaluation": evaluation(config.merged.digest, questions, told.samples)}


def _ask(endpoint: Endpoint, question: Question, number: int, beats: Beats) -> Reply:
    beats.update("ask", message=f"prompt {number}")
    reply = endpoint.ask(question)
    print(f"> {question.short}\n{reply.problem or reply.text}\n", flush=True)
    return reply
