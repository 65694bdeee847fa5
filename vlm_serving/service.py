"""A request's way: admitted, decoded in threads, captioned by the engine, logged. Knows neither HTTP nor Ray."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_serving.admission import Admission
from vlm_serving.captioner import Caption
from vlm_serving.config import ServingConfig
from vlm_serving.engine import LocalEngine, RunBatch, Submit
from vlm_serving.errors import (
    DeadlineExceededError,
    FeedbackOffError,
    PictureError,
    PictureFailedError,
    RequestError,
    ServingError,
)
from vlm_serving.exchange import CaptionJob, Engine, EngineState, JobResult, ModelCard
from vlm_serving.failure_log import FailureLog, FailureRow, model_fault
from vlm_serving.feedback_log import FeedbackLog, FeedbackRow
from vlm_serving.heap import HeapTrimmer
from vlm_serving.kept_pictures import KeptPictures
from vlm_serving.model_slot import ModelSlot
from vlm_serving.options import options_to_send
from vlm_serving.picture_stats import PictureStatistics, picture_statistics
from vlm_serving.preprocessing import ModelPicture, PreprocessingContract, decode_for_model
from vlm_serving.request_log import LogRow, RequestLog
from vlm_serving.telemetry import CPU_CLOCK, Meters
from vlm_serving.thumbnails import thumbnail

STATE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Upload:
    """An encoded picture and what to call it in an error, e.g. `files[2] (shoe.jpg)`."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Description:
    """What the log says of a picture."""

    sha256: str
    statistics: PictureStatistics
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class Prepared:
    """A decoded picture as the model sees it. Its description is made while the model works."""

    pixels: NDArray[np.uint8]  # (3, H, W)
    sha256: str
    description: asyncio.Future[Description | None]  # None: there is no log


@dataclass
class Attempt:
    """A request on its way, and the model that has it now: whom to blame if it fails."""

    request_id: str
    pictures: int
    card: ModelCard | None = None


@dataclass(frozen=True)
class Answer:
    """Captions in request order, with times in milliseconds. `queue` is all the wait for a model and its batch."""

    version: str
    captions: list[Caption]
    decode_ms: float
    queue_ms: float
    caption_ms: float
    total_ms: float
    model: str = ""  # its name


class CaptionService:
    """What stands before the models: limits, decoding, deadlines, the request log.

    `engine` captions; by default one in this process, to which `batched` goes: see LocalEngine.
    """

    def __init__(
        self,
        config: ServingConfig,
        meters: Meters,
        log: RequestLog | None = None,
        batched: Callable[[RunBatch], Submit] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.config = config
        self.meters = meters
        self.log = log
        self.failures = FailureLog.beside(log, config.request_log_flush_s) if log else None
        self.feedback = FeedbackLog(log.directory / "feedback", config.feedback_log_max_bytes) if log else None
        kept_bytes = config.feedback_pictures_max_bytes
        self.pictures = KeptPictures(log.directory / "pictures", kept_bytes) if log and kept_bytes else None
        self.engine: Engine = engine or LocalEngine(config, meters, batched)
        self._decoders = ThreadPoolExecutor(config.decode_threads, "decode")
        self._heap = HeapTrimmer()
        self.admission = Admission(config, lambda count: meters.gauge("vlm_in_work_pictures", count))
        self._dropped = 0  # rows of both logs, as counted so far
        self._hearing: asyncio.Task[None] | None = None

    @property
    def slot(self) -> ModelSlot:
        """The slot of the engine in this process."""
        return self._local.slot

    def put_model(self, bundle: str, version: str = "", named: Mapping[str, str] | None = None) -> str:
        """Replace the models of the engine in this process (blocking)."""
        return self._local.put_models(bundle, version, named)

    async def card(self, model: str = "") -> ModelCard:
        """The model called `model`, or the one that answers if none is named. NotReadyError, UnknownModelError."""
        state = await self.engine.state()
        if (model or state.default) not in state.cards:
            state = await self.engine.state(fresh=True)
        return state.card(model)

    async def state(self, fresh: bool = False) -> EngineState:
        """What models there are. Where replicas may sleep, only `fresh` wakes one to ask it.

        Model replicas in other processes that do not answer within STATE_TIMEOUT_S count as none.
        """
        try:
            async with asyncio.timeout(STATE_TIMEOUT_S):
                return await self.engine.state(fresh or self.config.min_replicas > 0)
        except TimeoutError:
            return EngineState(self.config.model_name, error="no model replica answers yet")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Where a request is held, from before its body is read. Raises what makes reading it pointless:
        OverloadedError, NotReadyError."""
        if isinstance(self.engine, LocalEngine):
            self.engine.slot.current()
        with self.admission.place():
            yield

    async def caption(
        self,
        uploads: Sequence[Upload],
        request_id: str,
        asked: Mapping[str, Any] | None = None,
        *,
        model: str = "",
        explain: bool = False,
        timeout_s: float | None = None,
    ) -> Answer:
        """Caption 1..N pictures as one request; all or none. `asked`: options by name, the bundle's own for the rest.

        `explain`: captions also carry where the model looked. `timeout_s` shortens the deadline of the settings.
        Cancelling it takes its pictures out of every queue. Raises NotReadyError, UnknownModelError, OverloadedError,
        RequestError (count, options), DeadlineExceededError, PictureError with the picture's name and an attribute
        `picture_index`, PictureFailedError.
        """
        limit_s = min(self.config.deadline_s, timeout_s or self.config.deadline_s)
        attempt = Attempt(request_id, len(uploads))
        try:
            async with asyncio.timeout(limit_s):
                until_s = time.perf_counter() + limit_s
                return await self._caption(uploads, attempt, asked or {}, model, explain, until_s)
        except TimeoutError as error:
            late = DeadlineExceededError(
                f"The request was not answered within {limit_s:g} s; its pictures were taken out of the queue. "
                "Send fewer at once, allow more time, or try again later."
            )
            if limit_s == self.config.deadline_s:  # a shorter one is the caller's own
                self._record_failure(late, attempt)
            raise late from error
        except Exception as error:
            self._record_failure(error, attempt)
            raise

    def check_health(self) -> None:
        """Raise ServingError if the engine in this process is stuck or sees otherwise than it did."""
        if isinstance(self.engine, LocalEngine):
            self.engine.check_health()

    def close(self) -> None:
        """Write what is left of the log and let the threads go."""
        self._decoders.shutdown(wait=False)
        if isinstance(self.engine, LocalEngine):
            self.engine.close()
        for log in (self.log, self.failures):
            if log:
                log.close()
        if self.pictures:
            self.pictures.close()

    def require_feedback(self) -> FeedbackLog:
        """The log of corrections. FeedbackOffError if there is none."""
        if self.feedback is None:
            raise FeedbackOffError("Corrections are not kept here: the server has no request log. Set VLM_REQUEST_LOG.")
        return self.feedback

    def correct(self, row: FeedbackRow) -> bool:
        """Keep a correction, and its picture if those are kept; False if it was there (blocking). See FeedbackLog."""
        new = self.require_feedback().append(row)
        if new and self.pictures:
            self.pictures.keep(row.caption_id)
        return new

    @property
    def _local(self) -> LocalEngine:
        if not isinstance(self.engine, LocalEngine):
            raise TypeError("The models are in other processes: change them there, by user_config.")
        return self.engine

    async def _caption(
        self,
        uploads: Sequence[Upload],
        attempt: Attempt,
        asked: Mapping[str, Any],
        model: str,
        explain: bool,
        deadline_s: float,
    ) -> Answer:
        started_s = time.perf_counter()
        card = await self.card(model)  # where models sleep, this waits until one is awake
        decoding_s = time.perf_counter()
        options = options_to_send(asked, card.options, self.config)
        if not 1 <= len(uploads) <= self.config.max_pictures:
            raise RequestError(
                f"The request has {len(uploads)} pictures; the limit is 1 to {self.config.max_pictures}. Split it."
            )
        with self.admission.admitted(len(uploads)):
            prepared = await self._decode(uploads, card.contract)
            decoded_s = time.perf_counter()
            job = CaptionJob(
                card, options, [one.sha256 for one in prepared], [one.pixels for one in prepared],
                left_s=deadline_s - decoded_s, explain=explain,
            )  # fmt: skip
            attempt.card = card
            result = await self._ask(job, uploads)
            attempt.card = result.card
        answer = _answer(result, uploads, started_s, decoded_s - decoding_s)
        attempt.card = None  # it has answered: what fails from here on is no fault of the model
        CPU_CLOCK.count(self.meters)
        self._record(answer, [await one.description for one in prepared], attempt.request_id)
        if self.pictures:
            for index, upload in enumerate(uploads):
                self.pictures.append(caption_id(attempt.request_id, index, len(uploads)), upload.data)
        return answer

    async def _ask(self, job: CaptionJob, uploads: Sequence[Upload]) -> JobResult:
        """Let the engine caption; if its model wants other pictures than were prepared, it gets the files."""
        result = await self.engine.caption(job)
        if not result.results:
            encoded = [upload.data for upload in uploads]
            result = await self.engine.caption(replace(job, card=result.card, pixels=(), encoded=encoded))
        return result

    async def _decode(self, uploads: Sequence[Upload], contract: PreprocessingContract) -> list[Prepared]:
        results = await asyncio.gather(
            *(self._prepared(upload.data, contract) for upload in uploads), return_exceptions=True
        )
        for index, result in enumerate(results):
            if isinstance(result, PictureError):
                raise named(result, index, uploads[index].name) from result
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Prepared)]

    async def _prepared(self, data: bytes, contract: PreprocessingContract) -> Prepared:
        """Returns as soon as the pixels are there: the thread goes on to describe the picture."""
        loop = asyncio.get_running_loop()
        decoded: asyncio.Future[tuple[NDArray[np.uint8], str]] = loop.create_future()

        def tell(pixels: NDArray[np.uint8], sha256: str) -> None:
            loop.call_soon_threadsafe(lambda: decoded.done() or decoded.set_result((pixels, sha256)))

        description = loop.run_in_executor(self._decoders, self._prepare, data, contract, tell)
        try:
            await asyncio.wait((decoded, description), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            description.cancel()  # not begun yet, it never will be
            raise
        if not decoded.done():
            description.result()  # raises what was wrong with the picture
        return Prepared(*decoded.result(), description)

    def _prepare(
        self, data: bytes, contract: PreprocessingContract, tell: Callable[[NDArray[np.uint8], str], None]
    ) -> Description | None:
        try:
            picture = decode_for_model(data, contract, self.config.limits)
            sha256 = hashlib.sha256(data).hexdigest()
            tell(picture.pixels, sha256)
            return describe(picture, sha256, self.config.request_log_thumbnail_px) if self.log else None
        finally:
            self._heap.trim_if_due()

    def _record(self, answer: Answer, described: Sequence[Description | None], request_id: str) -> None:
        self.meters.count("vlm_pictures", len(described), version=answer.version)
        for stage in ("decode", "queue", "caption", "total"):
            self.meters.observe("vlm_stage_seconds", getattr(answer, f"{stage}_ms") / 1000, stage=stage)
        if self.log:
            rows = [_row(answer, index, one, request_id) for index, one in enumerate(described) if one]
            self.log.append(rows)
            self._count_dropped()

    def _record_failure(self, error: Exception, attempt: Attempt) -> None:
        reason = model_fault(error)
        if self.failures is None or attempt.card is None or not reason:
            return
        version, now_s = attempt.card.version, time.time()
        self.failures.append([FailureRow(now_s, attempt.request_id, version, reason, attempt.pictures)])
        self._count_dropped()
        answered = isinstance(error, PictureFailedError)
        if not answered and (self._hearing is None or self._hearing.done()):
            self._hearing = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        """Ask which models there are: one that answers nothing brings no card along, and would pass for another."""
        with suppress(Exception):
            await self.state(fresh=True)

    def _count_dropped(self) -> None:
        """Some rows were lost by the writers, long after."""
        before, self._dropped = self._dropped, sum(log.dropped for log in (self.log, self.failures) if log)
        self.meters.count("vlm_request_log_dropped", self._dropped - before)


def describe(picture: ModelPicture, sha256: str, thumbnail_px: int = 0) -> Description:
    """What the log says of a decoded picture; 0: without a thumbnail."""
    size_px = (picture.width_px, picture.height_px)
    small = thumbnail(picture.square, size_px, thumbnail_px) if thumbnail_px else None
    return Description(sha256, picture_statistics(picture.shown, size_px), small)


def caption_id(request_id: str, index: int, count: int) -> str:
    """Names one caption, for the log and for corrections: the request id, with `/index` if it held several."""
    return request_id if count == 1 else f"{request_id}/{index}"


def named(error: PictureError, index: int, name: str) -> PictureError:
    """The same error with the picture's name in front and its index as an attribute."""
    renamed = type(error)(f"{name}: {error}")
    renamed.picture_index = index  # pyright: ignore[reportAttributeAccessIssue]
    return renamed


def _caption_of(result: Caption | ServingError, upload: Upload) -> Caption:
    if isinstance(result, ServingError):
        raise type(result)(f"{upload.name}: {result}")
    return result


def _answer(result: JobResult, uploads: Sequence[Upload], started_s: float, decoding_s: float) -> Answer:
    captions = [_caption_of(one, upload) for one, upload in zip(result.results, uploads, strict=True)]
    total_ms, decode_ms = 1000 * (time.perf_counter() - started_s), 1000 * decoding_s
    return Answer(
        version=result.card.version,
        captions=captions,
        decode_ms=decode_ms,
        queue_ms=max(0.0, total_ms - decode_ms - result.caption_ms),
        caption_ms=result.caption_ms,
        total_ms=total_ms,
        model=result.card.name,
    )


def _row(answer: Answer, index: int, picture: Description, request_id: str) -> LogRow:
    caption = answer.captions[index]
    return LogRow(
        time_unix_s=time.time(),
        request_id=caption_id(request_id, index, len(answer.captions)),
        model_version=answer.version,
        caption=caption.text,
        confidence=caption.confidence,
        token_count=caption.token_count,
        width_px=picture.statistics.width_px,
        height_px=picture.statistics.height_px,
        brightness=picture.statistics.brightness,
        contrast=picture.statistics.contrast,
        embedding=caption.embedding,
        latency_ms=answer.total_ms,
        picture_sha256=picture.sha256,
        thumbnail=picture.thumbnail,
        colourfulness=picture.statistics.colourfulness,
        sharpness=picture.statistics.sharpness,
        entropy_bits=picture.statistics.entropy_bits,
    )
