"""Asks the model that is being trained: the prompts that prepare stored, before the first step and after the last.

All ranks run the same forward passes, because under ZeRO-3 each pass gathers every layer from all of them. The prompts
share one packed row, so that one pass serves all answers. There is no cache of keys and values: training's attention
does not know one. That is no way to serve, but enough to see what the training changed: at most NEW_TOKENS passes,
mostly far fewer (see decoding.py), and no more than the answers are worth (see Patience).
"""

import logging
import time
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from falcon_trainer.beats import Beats
from falcon_trainer.data.tokenization import load_tokenizer
from falcon_trainer.report.samples import CUT, NEW_TOKENS, Moment, Sample, Samples, read_samples, stored
from falcon_trainer.train.decoding import Answer, Tokens
from falcon_trainer.train.zero import control_group, decided

log = logging.getLogger(__name__)

LONGEST_PROMPT = 1024
"""Tokens of a prompt that is still asked: a row of a few of them needs less memory than a training step."""
TRIES = 2
"""Starts that may come to their end while answering; the next one trains without."""
AGREEMENT = timedelta(seconds=60)

Asked = dict[int, Answer]
"""What rank 0 tells the others: answers to complete, by the number of the sample."""


class Patience:
    """How long answers are waited for: a few passes in any case, if they do not take half a minute (one of Falcon-180B
    moves 357 GB between the GPUs); more of them only while they are quick.
    """

    PASSES, QUICK_SECONDS, LONGEST_SECONDS = 8, 1.5, 30.0

    def __init__(self) -> None:
        self._passes, self._started = 0, time.monotonic()

    def over(self) -> bool:
        """Whether it is over after one more pass."""
        self._passes += 1
        seconds = time.monotonic() - self._started
        return seconds > (self.LONGEST_SECONDS if self._passes < self.PASSES else self.QUICK_SECONDS)


class Questions:
    """The stored prompts, put to the model. Every rank has one, and all call the same."""

    def __init__(self, prompts: Path, report: Path, model_folder: Path, beats: Beats) -> None:
        self._prompts, self._report, self._model_folder, self._beats = prompts, report, model_folder, beats
        self._tokenizer: Any = None

    def ask(self, moment: Moment, model: Any, step: int) -> None:
        """Puts the answers into samples.json, unless they are there or cannot be had, which is then said in it.

        Raises RuntimeError where the ranks no longer agree: one of them failed alone, inside a collective.
        """
        asked: Asked | None = decided(lambda: self._spared(lambda: self.wanted(moment, step)))
        if asked is None:
            return
        self._beats.update("samples")
        fine = True
        try:
            complete(model, list(asked.values()))
        except Exception:
            fine = False
            log.warning("The samples could not be answered. Training goes on without.", exc_info=True)
        if _everywhere(fine) and torch.distributed.get_rank() == 0:
            self._spared(lambda: self._keep(moment, asked))

    def wanted(self, moment: Moment, step: int) -> Asked | None:
        """What is to be asked now, noted as begun; None where that is nothing. On rank 0 alone."""
        samples = read_samples(self._report) or self._chosen()
        missing = [number for number, sample in enumerate(samples.samples) if getattr(sample, moment) is None]
        if not missing:
            return None
        if moment == "before" and step:
            samples.noted(f"The base was not asked: the training went on from step {step}.").write(self._report)
            return None
        if samples.tries.get(moment, 0) >= TRIES:
            ended = f"Not asked {moment} the training: {TRIES} attempts came to their end while answering."
            samples.noted(ended).write(self._report)
            return None
        samples.begun(moment).write(self._report)
        return {number: self._answer(samples.samples[number]) for number in missing}

    def _answer(self, sample: Sample) -> Answer:
        prompt, guess = self._ids(sample.prompt), self._ids(sample.expected)
        return Answer(prompt, guess, self._tokenizer.eos_token_id, NEW_TOKENS)

    def _chosen(self) -> Samples:
        """Those of the stored prompts that can be asked."""
        samples = stored(self._prompts)
        fitting = [each for each in samples.samples if 0 < len(self._ids(each.prompt)) <= LONGEST_PROMPT]
        chosen = samples.model_copy(update={"samples": fitting})
        if len(fitting) < len(samples.samples):
            chosen = chosen.noted(f"Prompts without text, or of more than {LONGEST_PROMPT} tokens, are not asked.")
        chosen.write(self._report)
        return chosen

    def _ids(self, text: str) -> Tokens:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._model_folder)
        ids: Tokens = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _keep(self, moment: Moment, asked: Asked) -> None:
        texts = {
            number: self._tokenizer.decode(answer.tokens, skip_special_tokens=True)
            + ("" if answer.tokens[-1:] == [answer.end_of_text] else CUT)
            for number, answer in asked.items()
        }
        samples = read_samples(self._report)
        assert samples
        samples.answered(moment, texts).write(self._report)

    def _spared(self, act: Any) -> Any:
        try:
            return act()
        except Exception as error:  # noqa: BLE001,RUF100 - no sample is worth the training
            log.warning("The samples are left out of the report (%s: %s).", type(error).__name__, error)
            return None


@torch.no_grad()
def complete(model: Any, answers: list[Answer]) -> None:
    """Completes the answers of a PEFT model of a PackedFalcon, as far as time allows. All ranks call.

    What rank 0 says counts on all ranks: were one to differ by rounding, the ranks would no longer ask the same.
    """
    import deepspeed

    falcon, trains = model.get_base_model(), model.training
    # Embedding and head are held for all passes (4 GB of Falcon-180B, less than a training step's activations):
    # gathered anew for each they cost a small model most of its time.
    vocabulary = [falcon.get_input_embeddings().weight]
    if falcon.lm_head.weight is not vocabulary[0]:
        vocabulary.append(falcon.lm_head.weight)
    patience, over = Patience(), False
    model.eval()
    try:
        with deepspeed.zero.GatheredParameters(vocabulary):
            while not over and (unfinished := [answer for answer in answers if not answer.finished]):
                told = torch.cat((_said(falcon, unfinished), torch.tensor([int(patience.over())])))
                torch.distributed.broadcast(told, 0, group=control_group())
                *said, over = told.tolist()
                for answer in unfinished:
                    count = answer.open
                    answer.take(said[:count])
                    said = said[count:]
    finally:
        model.train(trains)


def _said(falcon: Any, answers: list[Answer]) -> torch.Tensor:
    """The likeliest tokens after the open positions of all answers, one after the other, int64 on the host. One pass
    over one packed row.

    Embedding and head are gathered, and are not called as modules, whose hooks would let go of them. Only the open
    positions become logits.
    """
    embedding, head = falcon.get_input_embeddings().weight, falcon.lm_head.weight
    documents = [answer.document for answer in answers]
    ids = torch.tensor([[token for document in documents for token in document]], device=embedding.device)
    positions = torch.cat([torch.arange(len(document)) for document in documents])[None].to(ids.device)
    ends = accumulate(len(document) for document in documents)
    places = [place for answer, end in zip(answers, ends, strict=True) for place in range(end - answer.open, end)]
    hidden = falcon.hidden_states(ids, positions, functional.embedding(ids, embedding))
    return functional.linear(hidden[0, places], head).argmax(-1).cpu()


def _everywhere(fine: bool) -> bool:
    """Whether it is so on all ranks. Raises RuntimeError where one of them does not answer."""
    vote = torch.tensor(int(fine))
    work = torch.distributed.all_reduce(vote, torch.distributed.ReduceOp.MIN, group=control_group(), async_op=True)
    if work is not None:
        work.wait(AGREEMENT)
    return bool(vote.item())
