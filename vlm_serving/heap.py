"""Gives memory back that glibc keeps after large pictures.

Freed blocks of decoded pictures lie between small ones that live on, in an arena for each thread; glibc gives back
only what lies at an arena's end. After ten thousand hostile pictures a process held twice the memory that it used.
Large blocks have pages of their own, which go back at once, but what counts as large grows with the largest block that
was freed, up to 32 MiB: one huge picture, and all after it lie in the arenas. So the bound is set, and stays.
"""

import ctypes
import time

M_MMAP_THRESHOLD = -3  # mallopt(3), malloc.h
LARGE_BYTES = 4 << 20  # a photograph is smaller: fresh pages for each would cost it a millisecond


class HeapTrimmer:
    """Trims the heap every `period_s` seconds of use; does nothing where the C library has no malloc_trim."""

    def __init__(self, period_s: float = 0.5) -> None:
        self._period_s = period_s
        self._due_s = time.monotonic() + period_s
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        if self._trim is not None:
            library.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)

    def trim_if_due(self) -> bool:
        """Trim (milliseconds, other threads run on) if it is time to; returns whether it was."""
        now_s = time.monotonic()
        if self._trim is None or now_s < self._due_s:
            return False
        self._due_s = now_s + self._period_s
        self._trim(0)
        return True
