"""One line of progress every few seconds: how far, how fast, how long still."""

import time
from collections.abc import Callable


class Progress:
    """Counts up to `total` and reports through `log`, at most once every `every_s` seconds and once at the end."""

    def __init__(
        self, label: str, total: int, log: Callable[[str], object], unit: str = "pictures", every_s: float = 2.0
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._log, self._every_s = log, every_s
        self._count = self._before = 0
        self._started_s = self._reported_s = time.monotonic()

    def resume(self, n: int) -> None:
        """`n` were done by an earlier run: they count, but not for the rate."""
        self._count = self._before = n
        if n:
            self._log(f"{self.label}  going on behind {n:,} {self.unit} of an earlier run")

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more; `note` (a loss, say) ends the line when one is due."""
        self._count += n
        now_s = time.monotonic()
        if now_s - self._reported_s >= self._every_s:
            self._reported_s = now_s
            self._log(self.line(now_s, note))

    def done(self, note: str = "") -> None:
        """Report the end."""
        self._log(self.line(time.monotonic(), note))

    def line(self, now_s: float, note: str = "") -> str:
        """The line as of `now_s` on the monotonic clock."""
        elapsed_s = max(now_s - self._started_s, 1e-9)
        rate = (self._count - self._before) / elapsed_s
        share = f"{100 * self._count / self.total:3.0f}% " if self.total else ""
        left_s = (self.total - self._count) / rate if rate and self.total > self._count else 0.0
        ending = f"  ETA {left_s:.0f} s" if left_s else f"  in {elapsed_s:.1f} s"
        counted = f"{self._count:,}/{self.total:,}" if self.total else f"{self._count:,}"
        return (
            f"{self.label}  {share}{counted} {self.unit}  {rate:.0f} {self.unit}/s{ending}{'  ' if note else ''}{note}"
        )
