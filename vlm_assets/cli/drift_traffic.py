"""Continuous traffic for the drift demonstration: one picture a request, every answer counted."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import httpx

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Sent:
    """A picture of the traffic: what it is called here, its file, and what people say it shows."""

    name: str
    picture: bytes
    captions: tuple[str, ...]


@dataclass
class Stretch:
    """The traffic since `begin`: answers by status (0: no answer at all), and what was said of each picture."""

    pictures: Sequence[Sent]
    began_s: float
    answers: Counter[int] = field(default_factory=Counter[int])
    said: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])  # name: caption id, caption

    @property
    def dropped(self) -> int:
        """Requests whose first answer was no caption."""
        return self.answers.total() - self.answers[200]


class Traffic:
    """Asks without a pause, in a thread; what it asks about can be changed at any time."""

    def __init__(self, url: str, per_second: float) -> None:
        self._url, self._pause_s = f"{url}/v1/captions", 1 / per_second
        self.stretches: list[Stretch] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def begin(self, pictures: Sequence[Sent], per_second: float | None = None) -> Stretch:
        """From now on ask about these, over and over."""
        self._pause_s = 1 / per_second if per_second else self._pause_s
        self.stretches.append(Stretch(pictures, time.time()))
        if not self._thread.is_alive() and not self._stopping.is_set():
            self._thread.start()
        return self.stretches[-1]

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT_S)

    def total(self) -> tuple[int, int]:
        """Requests so far, and how many of them got no caption."""
        return sum(one.answers.total() for one in self.stretches), sum(one.dropped for one in self.stretches)

    def _run(self) -> None:
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
            for number in count():
                if self._stopping.is_set():
                    return
                began_s, stretch = time.monotonic(), self.stretches[-1]
                self._ask(client, stretch, stretch.pictures[number % len(stretch.pictures)])
                self._stopping.wait(max(0.0, self._pause_s - (time.monotonic() - began_s)))

    def _ask(self, client: httpx.Client, stretch: Stretch, sent: Sent) -> None:
        try:
            answer = client.post(self._url, files={"files": (f"{sent.name}.png", sent.picture)})
        except httpx.HTTPError:
            stretch.answers[0] += 1
            return
        if answer.status_code == 200:
            caption = answer.json()["captions"][0]
            stretch.said[sent.name] = (caption["id"], caption["text"])
        stretch.answers[answer.status_code] += 1
