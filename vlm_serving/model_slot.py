"""Where the serving model sits, and how another takes its place: loaded and checked beside it, then swapped."""

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.errors import BundleError, NotReadyError


@dataclass(frozen=True)
class SlotState:
    """What became of the last attempt to load. `refused` is the version that was asked for and not taken."""

    loading: str = ""
    error: str = ""
    refused: str = ""


class ModelSlot:
    """Holds the Captioner that answers. A bundle that cannot be used leaves the one before where it was."""

    def __init__(self, load: Callable[[str, str], Captioner]) -> None:
        self._load = load
        self._lock = threading.Lock()  # one load at a time: two would double the memory once more
        self._captioner: Captioner | None = None
        self.state = SlotState()

    @property
    def version(self) -> str:
        """Version of the model that answers; empty if there is none yet."""
        return self._captioner.version if self._captioner else ""

    @property
    def captioner(self) -> Captioner | None:
        """The model that answers, if there is one."""
        return self._captioner

    def current(self) -> Captioner:
        """The model that answers. Raises NotReadyError before the first one is in."""
        if self._captioner is None:
            reason = self.state.error or "its bundle is still being loaded"
            raise NotReadyError(f"No model serves yet: {reason}. Try again in a few seconds; GET /readyz tells more.")
        return self._captioner

    def refuse(self, error: Exception, asked: str) -> None:
        """Remember why `asked`, a version or address, was not taken."""
        self.state = SlotState(error=str(error) or repr(error), refused=asked)

    def put(self, bundle: str, version: str = "") -> str:
        """Load `bundle` (blocking, seconds), check its golden vectors, then let it answer; returns its version.

        Raises BundleError if it cannot be used; the model before, if any, goes on answering.
        """
        with self._lock:
            if version and version == self.version:
                self.state = SlotState()
                return version
            self.state = replace(self.state, loading=version or bundle)
            try:
                captioner = self._load(bundle, version)
            except Exception as error:
                self.refuse(error, version or bundle)
                raise _as_bundle_error(error, bundle) from error
            self._captioner, self.state = captioner, SlotState()
            _free_memory()
            return captioner.version


def load_captioner(
    bundle: str,
    version: str = "",
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    attention: str = "fused",
) -> Captioner:
    """Open and verify a bundle, load it, reproduce its golden vectors (which also warms the model up)."""
    opened = open_bundle(Path(bundle))
    if version and opened.version != version:
        raise BundleError(f"The bundle at {bundle} has version {opened.version}; {version} was asked for. Deploy that.")
    captioner = Captioner(opened, device=device, precision=precision, threads=threads, attention=attention)
    captioner.check_golden()
    return captioner


def _as_bundle_error(error: Exception, bundle: str) -> BundleError:
    if isinstance(error, BundleError):
        return error
    return BundleError(f"The bundle at {bundle} cannot be loaded: {type(error).__name__}: {error}")


def _free_memory() -> None:
    """Let go of the model that was replaced; requests that still hold it keep it alive until they are answered."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
