"""`python3 probe.py started|ready|alive`: asks the server of this pod for one token, as a client would.

A file of its own, mounted into pods of images that do not hold our code: only Python's standard library. `started`
means that a completion came. `ready` and `alive` allow for a queue: a server that answers nobody new but whose count of
generated tokens moves is busy, not stuck, and to send its clients away would only lengthen the queues of the others.

Told by the environment: FALCON_MODEL, the name to ask for, and VLLM_API_KEY, the bearer token if there is one.
"""

import json
import os
import sys
import time
import urllib.request

URL = "http://127.0.0.1:8000"
PATIENCE = {"started": 20.0, "ready": 20.0, "alive": 40.0}
"""Seconds that a token may take; the probes' own timeouts are longer."""
BETWEEN = 5.0
"""Seconds between two looks at the count of tokens."""
COUNTER = "vllm:generation_tokens_total"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks the pod itself, also where the pod's variables name a proxy for the world outside."""


def token_comes(url: str, patience: float) -> bool:
    """Whether the server completes a prompt by one token within `patience` seconds."""
    ask = {"model": os.environ["FALCON_MODEL"], "prompt": "1", "max_tokens": 1, "temperature": 0}
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("VLLM_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(ask).encode(), headers)
    try:
        with DIRECT.open(request, timeout=patience) as answer:
            return bool(json.load(answer)["choices"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        print(f"no completion: {error}", file=sys.stderr)
        return False


def tokens(url: str) -> float:
    """How many tokens the server has generated since its start; 0 where it does not say."""
    try:
        with DIRECT.open(f"{url}/metrics", timeout=BETWEEN) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(COUNTER))


def busy(url: str) -> bool:
    """Whether tokens are generated for others."""
    before = tokens(url)
    time.sleep(BETWEEN)
    return tokens(url) > before


def main(question: str, url: str = URL) -> int:
    """The exit code of the probe."""
    well = token_comes(url, PATIENCE[question]) or (question != "started" and busy(url))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
