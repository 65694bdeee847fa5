"""Picture files -> lines with captions, from a bundle here or from a server, several at a time, in the files' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vlm_serving.caption_lines import Line
from vlm_serving.client import CaptionClient
from vlm_serving.errors import CaptionRequestError, PictureError, PictureFailedError, ServingError

if TYPE_CHECKING:
    from vlm_serving.captioner import Caption, Captioner

BATCH = 16
# What a server says of one picture; anything else (no key, no model, wrong options) holds for all, so the run ends.
OF_THE_PICTURE = (400, 413, 415)
FAILED = "captioning-failed"


class Source(Protocol):
    """Where captions come from."""

    model_version: str

    def lines(self, files: Sequence[Path]) -> Iterator[Line]:
        """A line per file, in order; one that cannot be captioned has `error` instead of `caption`."""
        ...


class FromServer:
    """Captions of a running captioner: one request per picture, so that a bad one does not cost others theirs."""

    def __init__(self, client: CaptionClient, jobs: int, options: dict[str, Any]) -> None:
        self._client, self._jobs, self._options = client, jobs, options
        self.model_version = client.model_version()

    def lines(self, files: Sequence[Path]) -> Iterator[Line]:
        """See Source. Raises CaptionRequestError for what is not one picture's fault."""
        with ThreadPoolExecutor(self._jobs, "caption") as threads:
            yield from in_order(threads, self._line, files, 2 * self._jobs)

    def _line(self, file: Path) -> Line:
        try:
            result = self._client.caption([file], **self._options)[0]
        except OSError as error:
            return failed(file, error)
        except CaptionRequestError as error:
            if error.status in OF_THE_PICTURE or str(error.problem.get("type", "")).endswith(FAILED):
                return {"file": str(file), "error": str(error.problem.get("detail") or error)}
            raise
        return captioned(file, result.text, result.confidence, result.model_version)


class FromBundle:
    """Captions of a model loaded here; `jobs` threads read and decode while it works."""

    def __init__(self, captioner: Captioner, jobs: int, options: dict[str, Any]) -> None:
        from dataclasses import replace

        self._captioner, self._jobs = captioner, jobs
        self._options = replace(captioner.options, **options)
        self.model_version = captioner.version

    def lines(self, files: Sequence[Path]) -> Iterator[Line]:
        """See Source."""
        from vlm_serving.bulk import caption_encoded

        with ThreadPoolExecutor(self._jobs, "decode") as threads:
            for start in range(0, len(files), BATCH):
                some = files[start : start + BATCH]
                read = list(threads.map(_read, some))
                good = [data for data in read if isinstance(data, bytes)]
                outcomes = iter(caption_encoded(self._captioner, good, self._options, mapped=threads.map))
                for file, data in zip(some, read, strict=True):
                    yield self._line(file, next(outcomes) if isinstance(data, bytes) else data)

    def _line(self, file: Path, outcome: Caption | ServingError | OSError) -> Line:
        if isinstance(outcome, (PictureError, PictureFailedError, OSError)):
            return failed(file, outcome)
        assert not isinstance(outcome, ServingError)
        return captioned(file, outcome.text, outcome.confidence, self.model_version)


def captioned(file: Path, text: str, confidence: float, version: str) -> Line:
    """The line of a picture that was captioned."""
    return {"file": str(file), "caption": text, "confidence": round(confidence, 6), "model_version": version}


def failed(file: Path, error: Exception) -> Line:
    """The line of a picture that was not."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return {"file": str(file), "error": reason}


def in_order(
    threads: ThreadPoolExecutor, work: Callable[[Path], Line], files: Iterable[Path], ahead: int
) -> Iterator[Line]:
    """Results in the files' order, at most `ahead` begun and not yet taken; what waits is dropped on the way out."""
    begun: deque[Future[Line]] = deque()
    try:
        for file in files:
            begun.append(threads.submit(work, file))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()


@contextmanager
def open_source(bundle: Path | None, url: str, api_key: str, jobs: int, options: dict[str, Any]) -> Iterator[Source]:
    """The model at `bundle`, loaded and checked here, or the server at `url`. Raises ServingError."""
    if bundle is None:
        with CaptionClient(url, api_key=api_key) as client:
            yield FromServer(client, jobs, options)
        return
    from vlm_serving.model_slot import load_captioner

    yield FromBundle(load_captioner(str(bundle)), jobs, options)


def _read(file: Path) -> bytes | OSError:
    try:
        return file.read_bytes()
    except OSError as error:
        return error
