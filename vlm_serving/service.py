"""A request's way through the captioner: decode in threads, caption in batches, log. Knows neither HTTP nor Ray."""

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlm_serving.batching import Batcher
from vlm_serving.captioner import Caption, Captioner
from vlm_serving.config import ServingConfig
from vlm_serving.errors import OverloadedError, PictureError, PictureFailedError, RequestError, ServingError
from vlm_serving.feedback_log import FeedbackLog
from vlm_serving.generation import GenerationOptions
from vlm_serving.images import PictureLimits
from vlm_serving.model_slot import ModelSlot, load_captioner
from vlm_serving.options import chosen_options
from vlm_serving.picture_stats import PictureStatistics, picture_statistics
from vlm_serving.preprocessing import PreprocessingContract, decode_for_model
from vlm_serving.request_log import LogRow, RequestLog
from vlm_serving.telemetry import LOGGER, Meters, log_event


@dataclass(frozen=True)
class Upload:
    """An encoded picture and what to call it in an error, e.g. `files[2] (shoe.jpg)`."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Prepared:
    """A decoded picture, reduced to what the model and the log need."""

    pixels: NDArray[np.uint8]  # (3, H, W)
    statistics: PictureStatistics
    sha256: str


@dataclass(frozen=True)
class Item:
    """One picture on its way into a batch. It carries its model: a swap in between does not change its size or mean."""

    pixels: NDArray[np.uint8]  # (3, H, W)
    captioner: Captioner
    options: GenerationOptions
    submitted_s: float  # time.perf_counter()
    explain: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a batch made of one item: a caption or the error of this very picture, and when the model ran."""

    result: Caption | ServingError
    started_s: float
    finished_s: float


@dataclass(frozen=True)
class Answer:
    """Captions in request order, with times in milliseconds."""

    version: str
    captions: list[Caption]
    decode_ms: float
    queue_ms: float
    caption_ms: float
    total_ms: float


RunBatch = Callable[[list[Item]], Awaitable[list[Outcome]]]
Submit = Callable[[Item], Awaitable[Outcome]]


class CaptionService:
    """Everything a replica does. `batched` turns `run_batch` into a function of one item; by default a Batcher does."""

    def __init__(
        self,
        config: ServingConfig,
        meters: Meters,
        log: RequestLog | None = None,
        batched: Callable[[RunBatch], Submit] | None = None,
    ) -> None:
        self.config = config
        self.meters = meters
        self.log = log
        self.feedback = FeedbackLog(log.directory / "feedback", config.feedback_log_max_bytes) if log else None
        self.slot = ModelSlot(self._load)
        batcher = Batcher(self.run_batch, config.max_batch_size, config.batch_wait_timeout_s)
        self._submit = batched(self.run_batch) if batched else batcher.submit
        self._decoders = ThreadPoolExecutor(config.decode_threads, "decode")
        # the Captioner takes one caller at a time, and torch counts its threads per calling thread
        self._model_thread = ThreadPoolExecutor(1, "model", lambda: torch.set_num_threads(config.torch_threads))
        self._waiting = 0
        self._seconds_per_picture = 0.0
        self._batch_since_s: float | None = None

    def put_model(self, bundle: str, version: str = "") -> str:
        """Replace the model (blocking); see ModelSlot.put."""
        try:
            loaded = self.slot.put(bundle, version)
        except ServingError as error:
            self.meters.count("vlm_model_loads", outcome="refused")
            serving = self.slot.version or "no model"
            log_event("bundle refused", 40, bundle=bundle, version=version, error=str(error), still_serving=serving)
            raise
        self.meters.count("vlm_model_loads", outcome="loaded")
        log_event("bundle loaded", bundle=bundle, version=loaded)
        return loaded

    async def caption(
        self,
        uploads: Sequence[Upload],
        request_id: str,
        asked: Mapping[str, Any] | None = None,
        *,
        explain: bool = False,
    ) -> Answer:
        """Caption 1..N pictures as one request; all or none. `asked`: options by name, the bundle's own for the rest.
        `explain`: captions also carry where the model looked.

        Raises NotReadyError, OverloadedError, RequestError (count, options), PictureError with the picture's name and
        an attribute `picture_index`, PictureFailedError.
        """
        started_s = time.perf_counter()
        captioner = self.slot.current()
        options = chosen_options(asked or {}, captioner.options, self.config)
        self._admit(len(uploads))
        try:
            prepared = await self._decode(uploads, captioner.bundle.contract)
            decoded_s = time.perf_counter()
            items = [Item(one.pixels, captioner, options, decoded_s, explain) for one in prepared]
            outcomes = await asyncio.gather(*(self._submit(item) for item in items))
        finally:
            self._waiting -= len(uploads)
        captions = [_caption_of(outcome, upload) for outcome, upload in zip(outcomes, uploads, strict=True)]
        answer = _answer(captioner.version, captions, outcomes, started_s, decoded_s)
        self._record(answer, prepared, request_id)
        return answer

    async def run_batch(self, items: list[Item]) -> list[Outcome]:
        """Caption a batch in the model's thread; an item's error is its own outcome, never the batch's."""
        self.meters.observe("vlm_batch_pictures", len(items))
        loop = asyncio.get_running_loop()
        outcomes = await loop.run_in_executor(self._model_thread, self._caption_items, items)
        spent_s = (outcomes[-1].finished_s - outcomes[0].started_s) / len(items)
        self._seconds_per_picture = 0.8 * self._seconds_per_picture + 0.2 * spent_s
        return outcomes

    def check_health(self) -> None:
        """Raise ServingError if the model has been at one batch for longer than `stuck_batch_s`."""
        since_s = self._batch_since_s
        if since_s is not None and time.perf_counter() - since_s > self.config.stuck_batch_s:
            raise ServingError(f"A batch has run for more than {self.config.stuck_batch_s} s: the model is stuck.")

    def close(self) -> None:
        """Write what is left of the log and let the threads go."""
        self._decoders.shutdown(wait=False)
        self._model_thread.shutdown(wait=False)
        if self.log:
            self.log.close()

    def _load(self, bundle: str, version: str) -> Captioner:
        config = self.config
        return load_captioner(
            bundle,
            version,
            device=config.device,
            precision=config.precision,
            threads=config.torch_threads,
            attention=config.attention,
        )

    def _admit(self, count: int) -> None:
        if not 1 <= count <= self.config.max_pictures:
            raise RequestError(
                f"The request has {count} pictures; the limit is 1 to {self.config.max_pictures}. Split it."
            )
        if self._waiting + count > self.config.max_waiting_pictures:
            retry_s = max(1, math.ceil(self._waiting * self._seconds_per_picture))
            error = OverloadedError(
                f"{self._waiting} pictures are in work; the limit is {self.config.max_waiting_pictures}. "
                f"Try again in {retry_s} s."
            )
            error.retry_after_s = retry_s  # pyright: ignore[reportAttributeAccessIssue]
            raise error
        self._waiting += count

    async def _decode(self, uploads: Sequence[Upload], contract: PreprocessingContract) -> list[Prepared]:
        loop = asyncio.get_running_loop()
        limits = self.config.limits
        results = await asyncio.gather(
            *(loop.run_in_executor(self._decoders, prepare, upload.data, contract, limits) for upload in uploads),
            return_exceptions=True,
        )
        for index, result in enumerate(results):
            if isinstance(result, PictureError):
                raise named(result, index, uploads[index].name) from result
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Prepared)]

    def _caption_items(self, items: list[Item]) -> list[Outcome]:
        self._batch_since_s = time.perf_counter()
        try:
            return caption_items(items)
        finally:
            self._batch_since_s = None

    def _record(self, answer: Answer, prepared: Sequence[Prepared], request_id: str) -> None:
        self.meters.count("vlm_pictures", len(prepared), version=answer.version)
        for stage in ("decode", "queue", "caption", "total"):
            self.meters.observe("vlm_stage_seconds", getattr(answer, f"{stage}_ms") / 1000, stage=stage)
        if self.log:
            dropped = self.log.append([_row(answer, index, one, request_id) for index, one in enumerate(prepared)])
            self.meters.count("vlm_request_log_dropped", dropped)


def prepare(data: bytes, contract: PreprocessingContract, limits: PictureLimits) -> Prepared:
    """Decode one picture and bring it to the model's size. Raises PictureError."""
    picture = decode_for_model(data, contract, limits)
    statistics = picture_statistics(picture.shown, (picture.width_px, picture.height_px))
    return Prepared(picture.pixels, statistics, hashlib.sha256(data).hexdigest())


def caption_items(items: Sequence[Item]) -> list[Outcome]:
    """Caption items that may differ in model and options, in as few passes as possible; results in their order."""
    groups: dict[tuple[int, GenerationOptions, bool], list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault((id(item.captioner), item.options, item.explain), []).append(index)
    outcomes: dict[int, Outcome] = {}
    for indices in groups.values():
        started_s = time.perf_counter()
        results = _caption_group([items[index] for index in indices])
        finished_s = time.perf_counter()
        outcomes |= {i: Outcome(result, started_s, finished_s) for i, result in zip(indices, results, strict=True)}
    return [outcomes[index] for index in range(len(items))]


def _caption_group(items: Sequence[Item]) -> list[Caption | ServingError]:
    """One pass for items of one model and options; if it fails, each alone, so that only the culprit fails."""
    try:
        first, pixels = items[0], np.stack([item.pixels for item in items])
        return list(first.captioner.caption_pixels(pixels, first.options, explain=first.explain))
    except RequestError as error:  # of the options, which all of them share
        return [error for _ in items]
    except Exception as error:
        if len(items) == 1:
            LOGGER.exception("captioning failed")
            return [PictureFailedError(f"The model failed on it ({type(error).__name__}: {error}). Report it.")]
    return [result for item in items for result in _caption_group([item])]


def caption_id(request_id: str, index: int, count: int) -> str:
    """Names one caption, for the log and for corrections: the request id, with `/index` if it held several."""
    return request_id if count == 1 else f"{request_id}/{index}"


def named(error: PictureError, index: int, name: str) -> PictureError:
    """The same error with the picture's name in front and its index as an attribute."""
    renamed = type(error)(f"{name}: {error}")
    renamed.picture_index = index  # pyright: ignore[reportAttributeAccessIssue]
    return renamed


def _caption_of(outcome: Outcome, upload: Upload) -> Caption:
    if isinstance(outcome.result, ServingError):
        raise type(outcome.result)(f"{upload.name}: {outcome.result}")
    return outcome.result


def _answer(
    version: str, captions: list[Caption], outcomes: Sequence[Outcome], started_s: float, decoded_s: float
) -> Answer:
    first_s, last_s = min(one.started_s for one in outcomes), max(one.finished_s for one in outcomes)
    return Answer(
        version=version,
        captions=captions,
        decode_ms=1000 * (decoded_s - started_s),
        queue_ms=1000 * (first_s - decoded_s),
        caption_ms=1000 * (last_s - first_s),
        total_ms=1000 * (time.perf_counter() - started_s),
    )


def _row(answer: Answer, index: int, picture: Prepared, request_id: str) -> LogRow:
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
    )
