"""Shows a run on its way: a line for each transition, and one live line for the training in between."""

import sys
import time

from examples.demo.kube import Kubectl, KubectlError, Manifest, condition_of

STAGES = ("Accepted", "Prepared", "Trained", "Merged", "Serving", "Published", "Ready")
KIND = "falconfinetune"


class RunFailedError(Exception):
    """The run cannot go on by itself; the text is its own explanation."""


class Screen:
    """A terminal whose last line may be written over; in a log every line stays."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._last = ""
        self._start = time.monotonic()

    def line(self, text: str) -> None:
        """A line that stays."""
        end = "\r\033[K" if self._live and self._last else ""
        self._last = ""
        print(f"{end}[{time.monotonic() - self._start:4.0f} s] {text}", flush=True)

    def live(self, text: str) -> None:
        """The line that the next one replaces."""
        if text == self._last:
            return
        self._last = text
        print(
            f"\r\033[K         {text}" if self._live else f"         {text}", end="" if self._live else "\n", flush=True
        )


def training_line(status: Manifest) -> str:
    """One line of the training: step, share, loss, speed, time left."""
    training = status.get("training") or {}
    if not training.get("totalSteps"):
        return ""
    done, total = training.get("step", 0), training["totalSteps"]
    bar = "█" * round(24 * done / total)
    parts = [f"step {done}/{total} {bar:░<24}", f"loss {training.get('loss', '?')}"]
    if speed := training.get("tokensPerSecond"):
        parts.append(f"{speed} tokens/s")
    if (left := training.get("estimatedSecondsLeft")) is not None:
        parts.append(f"{left} s left")
    return "  ".join(parts)


def follow(kubectl: Kubectl, name: str, screen: Screen, *, timeout: float = 1800) -> Manifest:
    """Shows the run until it is Ready and returns it. Raises RunFailedError or TimeoutError."""
    deadline, seen = time.monotonic() + timeout, dict[str, tuple[str, str]]()
    while time.monotonic() < deadline:
        try:
            run = kubectl.get(KIND, name) or {}
        except KubectlError:  # the API server may be away for a moment
            run = {}
        for kind in STAGES:
            state = condition_of(run, kind)
            key = (state.get("status", ""), state.get("reason", ""))
            told = key[0] == "True" or (kind != "Ready" and key[1] != "Waiting")
            if state and told and seen.get(kind) != key:
                screen.line(f"{kind:<9} {state['status']:<7} {state['reason']}: {state['message']}")
                seen[kind] = key
        if condition_of(run, "Ready").get("status") == "True":
            return run
        if (stalled := condition_of(run, "Stalled")).get("status") == "True":
            raise RunFailedError(f"{stalled['reason']}: {stalled['message']}")
        text = training_line(run.get("status", {}))
        if text and condition_of(run, "Trained").get("status") != "True":
            screen.live(text)
        time.sleep(1)
    raise TimeoutError(
        f"{name} is not Ready after {timeout:.0f} s; `kubectl describe fft {name}` tells where it stands"
    )
