"""The official OpenAI client against the run's Service: models, a plain and a streamed chat, and what must be refused.

Arguments: endpoint, model, questions (a JSON list).
"""

import json
import sys

from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam


def message(text: str) -> ChatCompletionUserMessageParam:
    return {"role": "user", "content": text}


def refused(client: OpenAI, model: str, **arguments: object) -> str:
    """Name of the error that a request ends with; empty where it is answered."""
    try:
        client.chat.completions.create(model=model, messages=[message("hello")], **arguments)  # type: ignore[call-overload]
    except (BadRequestError, NotFoundError) as error:
        return type(error).__name__
    return ""


def main(endpoint: str, model: str, questions: str) -> None:
    client = OpenAI(base_url=endpoint, api_key="none")
    plain, streamed = [], []
    for question in json.loads(questions):
        reply = client.chat.completions.create(model=model, messages=[message(question)], temperature=0, max_tokens=256)
        plain.append(reply.choices[0].message.content)
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
        "wrong_model": refused(client, "no-such-model"),
        "negative_max_tokens": refused(client, model, max_tokens=-1),
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:4])
