"""Runs in the cluster: asks the served model through its Service, and the untrained base beside it.

Reads questions as JSON lines from the file given, prints one JSON line an answer. Only the official OpenAI client talks
to the endpoint, as a user's program would.
"""

import json
import sys
from pathlib import Path

from openai import OpenAI


def base_answers(questions: list[str], model: str) -> list[str]:
    """Greedy answers of the untrained base to the prompts that the endpoint builds (Dolly's, without context)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    answers = []
    for question in questions:
        prompt = f"### Instruction\n{question}\n\n### Answer\n"
        ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        out = network.generate(**ids, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        answers.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers


def main(endpoint: str, name: str, questions_file: str, base: str) -> None:
    questions: list[str] = json.loads(Path(questions_file).read_text())
    client = OpenAI(base_url=endpoint, api_key="none")
    for question, before in zip(questions, base_answers(questions, base), strict=True):
        reply = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=256
        )
        print(json.dumps({"question": question, "base": before, "tuned": reply.choices[0].message.content}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4])
