"""The official OpenAI client against the run's Service: models, a plain and a streamed chat, limits, many at once, and
what must be refused.

Arguments: endpoint, model, questions (a JSON list).
"""

import asyncio
import json
import sys

import httpx
from openai import APIStatusError, AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

PARALLEL = 32


def message(text: str) -> ChatCompletionUserMessageParam:
    return {"role": "user", "content": text}


def refused(client: OpenAI, model: str, text: str = "hello", **arguments: object) -> list[str | int | None]:
    """Name, status and code of the error that a chat ends with; empty where it is answered."""
    try:
        client.chat.completions.create(model=model, messages=[message(text)], **arguments)  # type: ignore[call-overload]
    except APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code]
    return []


def limited(client: OpenAI, model: str, question: str, answer: str) -> dict[str, str | None]:
    """How an answer ends that is cut at one token, and one that is cut at its own second word."""
    short = client.chat.completions.create(model=model, messages=[message(question)], temperature=0, max_tokens=1)
    word = answer.split()[1]
    cut = client.chat.completions.create(
        model=model, messages=[message(question)], temperature=0, max_tokens=256, stop=[word]
    )
    return {
        "max_tokens": short.choices[0].finish_reason,
        "stop": cut.choices[0].finish_reason,
        "before_stop": answer.partition(word)[0],
        "stopped": cut.choices[0].message.content,
    }


async def at_once(endpoint: str, model: str, question: str) -> list[str]:
    """The answers to one question, asked many times in the same moment."""
    async with AsyncOpenAI(base_url=endpoint, api_key="none", max_retries=0) as client:
        asked = [
            client.chat.completions.create(model=model, messages=[message(question)], temperature=0, max_tokens=4)
            for _ in range(PARALLEL)
        ]
        return [reply.choices[0].message.content or "" for reply in await asyncio.gather(*asked)]


def malformed(endpoint: str) -> list[str | int]:
    """Status of a request that is no JSON, and the type of its error."""
    headers = {"Content-Type": "application/json"}
    response = httpx.post(f"{endpoint}/chat/completions", content=b'{"model": ', headers=headers)
    return [response.status_code, response.json()["error"]["type"]]


def main(endpoint: str, model: str, questions: str) -> None:
    client = OpenAI(base_url=endpoint, api_key="none", max_retries=0)
    plain = []
    for question in json.loads(questions):
        reply = client.chat.completions.create(model=model, messages=[message(question)], temperature=0, max_tokens=256)
        plain.append(reply.choices[0].message.content or "")
    wordy, question = max(zip(plain, json.loads(questions), strict=True), key=lambda pair: len(pair[0].split()))
    first = json.loads(questions)[0]
    stream = client.chat.completions.create(
        model=model, messages=[message(first)], temperature=0, max_tokens=256, stream=True
    )
    streamed = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    prompt = f"### Instruction\n{first}\n\n### Answer\n"
    completion = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=256)
    answers = {
        "models": [entry.id for entry in client.models.list()],
        "plain": plain,
        "streamed": "".join(streamed),
        "chunks": len(streamed),
        "completion": completion.choices[0].text,
        "limited": limited(client, model, question, wordy),
        "at_once": asyncio.run(at_once(endpoint, model, first)),
        "refused": {
            "wrong model": refused(client, "no-such-model"),
            "negative max_tokens": refused(client, model, max_tokens=-1),
            "log probabilities": refused(client, model, logprobs=True),
            "too long": refused(client, model, "word " * 5000),
        },
        "malformed": malformed(endpoint),
        "afterwards": client.chat.completions.create(
            model=model, messages=[message(first)], temperature=0, max_tokens=256
        )
        .choices[0]
        .message.content,
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:4])
