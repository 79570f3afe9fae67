"""The endpoint as a client sees it: a real engine with a real tiny Falcon, asked with the official OpenAI client."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from falcon_trainer.beats import Beats
from falcon_trainer.config import Dataset, RunConfig
from falcon_trainer.data.contents import PROMPTS
from falcon_trainer.data.formats import Conversion
from falcon_trainer.data.prompt import heading
from falcon_trainer.data.tokenization import Encoder
from falcon_trainer.evaluate.stage import evaluate
from falcon_trainer.layout import RunLayout
from falcon_trainer.report.drawing import Drawing
from falcon_trainer.report.samples import CUT, read_samples
from tests.unit.trainer.launcher_pod import CONFIG as LAUNCHED
from tests.unit.trainer.launcher_pod import eventually
from tests.unit.trainer.serve_process import ALIAS, POSITIONS, RUN, Server, merged_model, seconds_of

CHAT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Why is the sky blue?"}]
PROMPT = "Give three tips"
DATA = {"sources": [{"uri": "pvc://data/dolly.jsonl"}], "format": "dolly"}


class Reference:
    """The same model in this process: what the greedy answers must be."""

    def __init__(self) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        workspace, merged = merged_model()
        self.tokenizer = AutoTokenizer.from_pretrained(workspace / merged["path"])
        self.model = AutoModelForCausalLM.from_pretrained(workspace / merged["path"]).eval()

    def chat_ids(self) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"])

    def greedy(self, ids: list[int], count: int) -> str:
        import torch

        settings = {"do_sample": False, "max_new_tokens": count, "pad_token_id": self.tokenizer.eos_token_id}
        tokens = self.model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **settings)
        return str(self.tokenizer.decode(tokens[0, len(ids) :], skip_special_tokens=True))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


def whole(text: str) -> str:
    """A text without the bytes of a character that is not complete yet, which a stream never sends."""
    return text.replace("\ufffd", "")


def test_the_runs_name_and_its_alias_are_the_only_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [RUN, ALIAS]
    assert [client.models.retrieve(name).id for name in (RUN, ALIAS)] == [RUN, ALIAS]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-5")
    assert caught.value.code == "model_not_found"


def test_an_answer_under_the_alias_names_the_run_that_gave_it(client: OpenAI) -> None:
    settings: dict[str, Any] = {"messages": CHAT, "max_tokens": 4, "temperature": 0}
    answers = [client.chat.completions.create(model=name, **settings) for name in (RUN, ALIAS)]
    assert answers[0].choices == answers[1].choices
    assert [answer.model for answer in answers] == [RUN, RUN]


def test_a_chat_is_answered_as_the_model_itself_answers_in_its_template(client: OpenAI, reference: Reference) -> None:
    answer = client.chat.completions.create(model=RUN, messages=CHAT, max_tokens=24, temperature=0)
    ids = reference.chat_ids()
    assert whole(answer.choices[0].message.content or "") == whole(reference.greedy(ids, 24))
    assert (answer.model, answer.object, answer.choices[0].finish_reason) == (RUN, "chat.completion", "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), 24)


def test_a_record_is_asked_as_it_was_trained_token_by_token(client: OpenAI, reference: Reference) -> None:
    conversion = Conversion.of(Dataset.model_validate(DATA), reference.tokenizer.eos_token)
    record = {"instruction": "Why is the sky blue?", "context": "Physics.", "response": "Because of scattering."}
    ((trained,),) = Encoder(reference.tokenizer, "completion").encode([conversion.document(record)])
    prompt = trained.ids[: trained.trained[0]]
    message: Any = {"role": "user", "content": conversion.sample(record)["message"]}
    answer = client.chat.completions.create(model=RUN, messages=[message], max_tokens=16, temperature=0)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(prompt)
    assert whole(answer.choices[0].message.content or "") == whole(reference.greedy(prompt, 16))


def test_a_streamed_chat_says_the_same_in_pieces(client: OpenAI, reference: Reference) -> None:
    options: Any = {"include_usage": True}
    settings: dict[str, Any] = {"max_tokens": 24, "temperature": 0, "stream_options": options}
    chunks = list(client.chat.completions.create(model=RUN, messages=CHAT, stream=True, **settings))
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == whole(reference.greedy(reference.chat_ids(), 24))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {(chunk.model, chunk.id) for chunk in chunks} == {(RUN, chunks[0].id)}
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24


def test_a_completion_goes_on_from_the_raw_prompt_for_16_tokens(client: OpenAI, reference: Reference) -> None:
    answer = client.completions.create(model=RUN, prompt=PROMPT, temperature=0)
    expected = reference.greedy(reference.tokenizer(PROMPT)["input_ids"], 16)
    assert whole(answer.choices[0].text) == whole(expected)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_a_streamed_completion_says_the_same_in_pieces(client: OpenAI) -> None:
    plain = client.completions.create(model=RUN, prompt=PROMPT, temperature=0, max_tokens=40)
    chunks = list(client.completions.create(model=RUN, prompt=PROMPT, temperature=0, max_tokens=40, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == plain.choices[0].text
    assert len(chunks) > 2
    assert all(chunk.usage is None for chunk in chunks)


def test_each_piece_of_a_stream_is_sent_when_it_is_there(server: Server) -> None:
    body = {"model": RUN, "prompt": PROMPT, "max_tokens": 4000, "stream": True, "temperature": 0}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()  # kept: httpx ends the request when this is collected
        next(lines)
        assert server.metric("falcon_serve_in_flight") == 1


def test_content_in_parts_is_one_text(client: OpenAI) -> None:
    parts: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": [{"type": "text", "text": "Why is the "}, {"type": "text", "text": "sky blue?"}]}
    ]
    answers = [
        client.chat.completions.create(model=RUN, messages=messages, max_tokens=8, temperature=0)
        for messages in (CHAT, parts)
    ]
    assert answers[0].choices[0].message == answers[1].choices[0].message
    assert answers[0].usage == answers[1].usage


def test_a_chat_may_go_on_with_the_clients_own_copy_of_an_answer(client: OpenAI) -> None:
    first = client.chat.completions.create(model=RUN, messages=CHAT, max_tokens=4, temperature=0)
    echoed: Any = first.choices[0].message.model_dump()  # with refusal: null, tool_calls: null, …
    again = client.chat.completions.create(
        model=RUN, messages=[*CHAT, echoed, {"role": "user", "content": "And then?"}], max_tokens=4
    )
    assert again.usage is not None
    assert first.usage is not None
    assert again.usage.prompt_tokens > first.usage.prompt_tokens


def test_without_a_limit_a_chat_may_fill_the_context(client: OpenAI, reference: Reference) -> None:
    word = reference.tokenizer(" sky")["input_ids"]
    long: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": " sky" * ((POSITIONS - 40) // len(word))},
    ]
    answer = client.chat.completions.create(model=RUN, messages=long, temperature=0)
    assert answer.usage is not None
    assert answer.usage.total_tokens == POSITIONS or answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 1


def test_a_seed_makes_a_drawn_answer_repeatable_whatever_runs_beside_it(client: OpenAI) -> None:
    def ask(seed: int) -> str:
        return client.completions.create(model=RUN, prompt=PROMPT, max_tokens=30, seed=seed).choices[0].text

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(ask, [1, 2, 1, 3, 1, 2, 1, 1]))
    assert len({texts[0], texts[2], texts[4], texts[6], texts[7]}) == 1
    assert texts[1] == texts[5]
    assert len(set(texts)) == 3


def test_a_temperature_is_obeyed_although_the_model_says_nothing_of_sampling(client: OpenAI) -> None:
    texts = {client.completions.create(model=RUN, prompt=PROMPT, max_tokens=20).choices[0].text for _ in range(3)}
    assert len(texts) == 3


def test_an_answer_ends_at_the_models_end_of_text(client: OpenAI) -> None:
    def ask(seed: int) -> Any:
        settings: dict[str, Any] = {"max_tokens": 300, "temperature": 2, "seed": seed}
        return client.completions.create(model=RUN, prompt=PROMPT, **settings)

    ended = next(answer for answer in map(ask, range(40)) if answer.choices[0].finish_reason == "stop")
    assert ended.usage.completion_tokens < 300
    assert "<|endoftext|>" not in ended.choices[0].text


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_ends_the_answer_and_is_not_part_of_it(client: OpenAI, stream: bool) -> None:
    settings: dict[str, Any] = {"model": RUN, "prompt": PROMPT, "max_tokens": 60, "seed": 7}
    full = client.completions.create(**settings).choices[0].text
    stop = full[20:23]
    if not stream:
        cut = client.completions.create(**settings, stop=stop)
        text, finish = cut.choices[0].text, cut.choices[0].finish_reason
        assert cut.usage is not None
        assert 0 < cut.usage.completion_tokens < 60
    else:
        chunks = list(client.completions.create(**settings, stop=["never said", stop], stream=True))
        text, finish = "".join(chunk.choices[0].text for chunk in chunks), chunks[-1].choices[0].finish_reason
    assert (text, finish) == (full[: full.index(stop)], "stop")


def test_32_clients_at_once_get_what_one_gets(client: OpenAI) -> None:
    def complete(number: int) -> str:
        prompt = f"{PROMPT} {number}"
        return client.completions.create(model=RUN, prompt=prompt, max_tokens=8, temperature=0).choices[0].text

    def stream(number: int) -> str:
        asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"{PROMPT} {number}"}]
        settings: dict[str, Any] = {"max_tokens": 8, "temperature": 0, "stream": True}
        chunks = client.chat.completions.create(model=ALIAS, messages=asked, **settings)
        return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)

    def ask(number: int) -> str:
        return (complete, stream)[number % 2](number // 2 % 4)

    alone = [ask(number) for number in range(8)]
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, range(32))) == alone * 4


@pytest.mark.parametrize("stream", [True, False], ids=["a stream", "a whole answer"])
def test_a_client_that_leaves_ends_the_generation(server: Server, client: OpenAI, stream: bool) -> None:
    def short() -> None:
        client.completions.create(model=RUN, prompt=PROMPT, max_tokens=100, temperature=0)

    short()
    hundred = seconds_of(short)
    before = server.metric("falcon_serve_disconnects_total")
    body = {"model": RUN, "prompt": PROMPT, "max_tokens": 4000, "temperature": 0, "stream": stream}
    patience = max(0.2, hundred / 2)
    if stream:
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body) as response:
            next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/completions", json=body, timeout=patience)
    # 4,000 tokens take more than forty times as long as the hundred that now come at once.
    assert seconds_of(short) < 10 * hundred + 0.2
    eventually(lambda: server.metric("falcon_serve_disconnects_total") == before + 1, "the client was missed")


def test_a_client_that_leaves_the_queue_is_never_asked_for(server: Server) -> None:
    body = {"model": RUN, "prompt": PROMPT, "max_tokens": 4000, "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/completions", json={"model": RUN, "prompt": "x"}, timeout=0.3)
        eventually(lambda: server.metric("falcon_serve_in_flight") == 1, "only the long answer is left")
        assert server.metric("falcon_serve_waiting") == 0
    eventually(lambda: server.metric("falcon_serve_in_flight") == 0, "nobody is left")


def test_health_and_readiness_say_so_and_progress_is_beaten(server: Server) -> None:
    assert json.loads(server.get("/health")[1]) == {"status": "ok"}
    assert json.loads(server.get("/ready")[1]) == {"status": "ready"}
    assert json.loads((server.runtime / "beat-0.json").read_text())["phase"] == "serve"


def test_only_the_engine_holds_torch_in_memory(server: Server) -> None:
    def maps(pid: int) -> str:
        return Path(f"/proc/{pid}/maps").read_text()

    assert "libtorch" in maps(server.engine())
    assert "libtorch" not in maps(server.process.pid)


def test_metrics_count_requests_and_tokens(server: Server, client: OpenAI) -> None:
    requests = 'falcon_serve_requests_total{path="/v1/completions",status="200"}'
    written = 'falcon_serve_tokens_total{kind="completion"}'
    before = server.metric(requests), server.metric(written)
    client.completions.create(model=RUN, prompt=PROMPT, max_tokens=5, temperature=0)
    assert (server.metric(requests), server.metric(written)) == (before[0] + 1, before[1] + 5)
    assert server.metric("falcon_serve_ready") == 1


def test_the_engine_of_transformers_obeys_element_type_and_attention() -> None:
    import torch
    from transformers.cli.serving.model_manager import ModelManager

    workspace, merged = merged_model()
    folder = str(workspace / merged["path"])
    (loaded,) = ModelManager(
        device="cpu", dtype="bfloat16", attn_implementation="eager", force_model=folder
    ).loaded_models.values()
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.config._attn_implementation == "eager"


def test_the_evaluation_asks_this_endpoint_what_it_was_trained_on(
    server: Server, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Drawing, "finish", lambda self: None)
    layout = RunLayout(RUN, tmp_path)
    layout.data.mkdir(parents=True)
    prompt = heading(str(CHAT[0]["content"]))
    (layout.data / PROMPTS).write_text(json.dumps([{"prompt": prompt, "answer": "x", "messages": CHAT}]))
    told = {"run": RUN, "merged": merged_model()[1], "endpoint": f"{server.url}/v1"}
    result: Any = evaluate(RunConfig.model_validate(LAUNCHED | told), Beats("evaluate", directory=tmp_path), layout)
    assert (result["evaluation"]["prompts"], result["evaluation"]["answered"]) == (1, 1)
    samples = read_samples(layout.report)
    assert samples
    assert samples.samples[0].served == whole(reference.greedy(reference.tokenizer(prompt)["input_ids"], 32)) + CUT
