"""How many requests a caller may make: token buckets in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from hub.proxy.problems import Problem

_CALLERS = 10_000


class RateLimit:
    """`rate` requests a second for each caller, and bursts of `burst`."""

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.burst = max(burst, 1)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def spend(self, caller: str) -> None:
        """Take one request from the caller's bucket. Raises Problem 429 when it is empty."""
        level = self._level(caller)
        if level < 1:
            self._buckets[caller] = (level, self._clock())
            seconds = math.ceil((1 - level) / self.rate)
            raise Problem(429, f"At most {self.rate:g} requests a second.", headers={"Retry-After": str(seconds)})
        self._keep_few()
        self._buckets[caller] = (level - 1, self._clock())

    def exhausted(self, caller: str) -> bool:
        """Whether `spend` would raise."""
        return self._level(caller) < 1

    def _level(self, caller: str) -> float:
        level, at = self._buckets.get(caller, (self.burst, self._clock()))
        return min(self.burst, level + (self._clock() - at) * self.rate)

    def _keep_few(self) -> None:
        """Forget callers whose bucket is full again, once there are many."""
        if len(self._buckets) >= _CALLERS:
            self._buckets = {name: state for name, state in self._buckets.items() if self._level(name) < self.burst}
            if len(self._buckets) >= _CALLERS:
                self._buckets.clear()
