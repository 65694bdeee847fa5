"""Child processes that do not outlive us, even if we are killed."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent() -> None:
    """As `preexec_fn` of a child: ask the kernel for a SIGTERM when the parent is gone, even by SIGKILL (Linux).

    A caller that ignores SIGTERM (a job runner, a shell with a trap) bequeaths that; here it must count.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _load_libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


_LIBC = _load_libc()  # before any fork: loading a library between fork and exec can deadlock
