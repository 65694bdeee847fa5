"""How many requests and pictures may wait: so many as the model gets through in the time that a caller is let wait.

A queue bounded by number alone answers late when the model is slow and refuses early when it is quick. How quick it is,
is read off the requests themselves (Little's law: what was in work at a request's entry, by the time it took).
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vlm_serving.config import ServingConfig
from vlm_serving.errors import OverloadedError

NEWEST = 0.1  # what the last request weighs in the rate


class Admission:
    """Counts requests and their pictures, lets in no more than will be through in time. Used from one event loop."""

    def __init__(self, config: ServingConfig, tell: Callable[[int], object] = lambda _: None) -> None:
        """`tell` is told how many pictures are in work whenever that changes."""
        self._tell = tell
        self._most = config.front_waiting_pictures
        self._batches = 2 * config.max_batch_size * config.max_replicas  # one in the model, one gathering
        self._max_wait_s = config.max_wait_s
        self.most_requests = config.front_requests
        self.requests = 0  # from before their body is read until they are answered
        self.waiting = 0  # pictures
        self.pictures_per_s = 0.0

    @property
    def limit(self) -> int:
        """Pictures that may be in work now. One request alone may have more, up to the settings' bound."""
        if not self._max_wait_s:
            return self._most
        return min(self._most, max(self._batches, int(self.pictures_per_s * self._max_wait_s)))

    def require_room(self, count: int = 1) -> None:
        """Raise OverloadedError, which says when to try again, if `count` pictures more are too many."""
        if self.waiting + count > (self.limit if self.waiting else self._most):
            raise self._refusal(f"{self.waiting} pictures are in work; the limit is {self.limit}")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A request is held inside. Raises OverloadedError instead if it is one too many, or no picture has room."""
        if self.requests >= self.most_requests:
            raise self._refusal(f"{self.requests} requests are in work; the limit is {self.most_requests}")
        self.require_room()
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def admitted(self, count: int) -> Iterator[None]:
        """The pictures are in work inside. Raises OverloadedError instead of letting them in."""
        self.require_room(count)
        self._count(count)
        ahead, entered_s = self.waiting, time.perf_counter()
        try:
            yield
            rate = ahead / max(time.perf_counter() - entered_s, 1e-6)
            self.pictures_per_s += (NEWEST if self.pictures_per_s else 1.0) * (rate - self.pictures_per_s)
        finally:
            self._count(-count)

    def _refusal(self, why: str) -> OverloadedError:
        left_s = self.waiting / self.pictures_per_s if self.pictures_per_s else 0.0
        retry_s = max(1, math.ceil(left_s))
        return OverloadedError(f"{why} at present. Try again in {retry_s} s.", retry_s)

    def _count(self, more: int) -> None:
        self.waiting += more
        self._tell(self.waiting)
