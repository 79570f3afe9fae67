"""From a question to its answer: turn, generation, stop sequences, counting."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from falcon_trainer.serve.answers import DONE, Answer, Usage, error_event
from falcon_trainer.serve.engine import Engine, EngineError, Piece
from falcon_trainer.serve.errors import ApiError, engine_failed
from falcon_trainer.serve.health import Health
from falcon_trainer.serve.metrics import Metrics
from falcon_trainer.serve.model import ServedModel
from falcon_trainer.serve.question import Question
from falcon_trainer.serve.stops import StopFilter
from falcon_trainer.serve.turns import Turns


@dataclass
class Answering:
    """Asks the engine and keeps the books."""

    model: ServedModel
    engine: Engine
    turns: Turns
    health: Health
    metrics: Metrics

    async def whole(self, question: Question) -> dict[str, object]:
        """The body of an answer that is not streamed. Raises ApiError."""
        texts: list[str] = []
        last = Piece()
        async with aclosing(self.pieces(question)) as pieces:
            async for last in pieces:
                texts.append(last.text)
        answer = Answer(question.kind, self.model.name)
        return answer.whole("".join(texts), last.finish or "stop", self._usage(question, last))

    async def stream(self, question: Question, *, include_usage: bool) -> AsyncGenerator[str, None]:
        """The events of a streamed answer; an error becomes the last one."""
        answer = Answer(question.kind, self.model.name)
        if opening := answer.opening():
            yield opening
        try:
            async with aclosing(self.pieces(question)) as pieces:
                async for piece in pieces:
                    if piece.text:
                        yield answer.piece(piece.text)
                    if piece.finish:
                        yield answer.closing(piece.finish)
                    if piece.finish and include_usage:
                        yield answer.usage_event(self._usage(question, piece))
        except ApiError as error:
            yield error_event(error.body())
            return
        yield DONE

    async def pieces(self, question: Question) -> AsyncGenerator[Piece, None]:
        """The text in pieces, cut at stop sequences; the last piece has `finish`. Raises ApiError."""
        asked = time.monotonic()
        stops, written = StopFilter(question.stops), ""
        async with self.turns.turn(), aclosing(self._from_engine(question)) as pieces:
            async for piece in pieces:
                if piece.text and not written:
                    self.metrics.first_token.observe(time.monotonic() - asked)
                written += piece.text
                text = stops.feed(piece.text) + (stops.rest() if piece.finish else "")
                shown = Piece(text, piece.finish, piece.completion_tokens)
                if stops.stopped:
                    # Cut off here, so the engine will not say how many tokens this took.
                    shown = Piece(text, "stop", self.model.prompt_tokens(written))
                if shown.finish:
                    self._count(question, shown)
                yield shown
                if shown.finish:
                    return

    async def probe(self) -> None:
        """A real answer of one token, so that readiness rests on the model and not on the process. Raises ApiError."""
        prompt = self.model.tokenizer.decode([self.model.tokenizer.eos_token_id])
        question = Question(
            kind="completion", prompt={"prompt": prompt}, prompt_tokens=1, max_tokens=1, sampling={"do_sample": False}
        )
        async with self.turns.turn(), aclosing(self._from_engine(question)) as pieces:
            async for _ in pieces:
                pass

    async def _from_engine(self, question: Question) -> AsyncGenerator[Piece, None]:
        self.health.asked()
        try:
            async with aclosing(self.engine.generate(question)) as pieces:
                async for piece in pieces:
                    if piece.text or piece.finish:  # a chat's first event only says who speaks
                        self.health.token()
                    yield piece
        except EngineError as error:
            self.metrics.engine_errors.inc()
            raise engine_failed(str(error)) from error
        finally:
            self.health.answered()

    def _count(self, question: Question, last: Piece) -> None:
        self.metrics.tokens.labels("prompt").inc(question.prompt_tokens)
        self.metrics.tokens.labels("completion").inc(last.completion_tokens or 0)

    def _usage(self, question: Question, last: Piece) -> Usage:
        return Usage(question.prompt_tokens, last.completion_tokens or 0)
