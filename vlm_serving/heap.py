"""Gives memory back that glibc keeps after large pictures.

Freed blocks of decoded pictures lie between small ones that live on, in an arena for each thread; glibc gives back
only what lies at an arena's end. After ten thousand hostile pictures a process held twice the memory that it used.
"""

import ctypes
import time


class HeapTrimmer:
    """Trims the heap every `period_s` seconds of use; does nothing where the C library has no malloc_trim."""

    def __init__(self, period_s: float = 0.5) -> None:
        self._period_s = period_s
        self._due_s = time.monotonic() + period_s
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def trim_if_due(self) -> bool:
        """Trim (milliseconds, other threads run on) if it is time to; returns whether it was."""
        now_s = time.monotonic()
        if self._trim is None or now_s < self._due_s:
            return False
        self._due_s = now_s + self._period_s
        self._trim(0)
        return True
