"""The models at work: pictures of many requests go through them in batches. Knows neither HTTP nor Ray."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlm_serving.answer_cache import AnswerCache
from vlm_serving.batching import Batcher
from vlm_serving.captioner import Caption, Captioner
from vlm_serving.config import ServingConfig
from vlm_serving.errors import PictureFailedError, RequestError, ServingError
from vlm_serving.exchange import CaptionJob, EngineState, JobResult, ModelCard
from vlm_serving.generation import GenerationOptions
from vlm_serving.health import GoldenProbe
from vlm_serving.model_shelf import KeepOpen, ModelShelf
from vlm_serving.model_slot import ModelSlot, load_captioner
from vlm_serving.preprocessing import decode_for_model
from vlm_serving.telemetry import CPU_CLOCK, LOGGER, Meters, log_event


@dataclass(frozen=True)
class Item:
    """One picture on its way into a batch. It carries its model: a swap in between does not change its size or mean."""

    pixels: NDArray[np.uint8]  # (3, H, W)
    captioner: Captioner
    options: GenerationOptions
    explain: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a batch made of one item: a caption or the error of this very picture, and when the model ran."""

    result: Caption | ServingError
    started_s: float  # time.perf_counter()
    finished_s: float


RunBatch = Callable[[list[Item]], Awaitable[list[Outcome]]]
Submit = Callable[[Item], Awaitable[Outcome]]


class LocalEngine:
    """All that a model replica does.

    `batched` turns `run_batch` into a function of one item, by default a Batcher does; `keep` holds models in memory
    by name, see ModelShelf.
    """

    def __init__(
        self,
        config: ServingConfig,
        meters: Meters,
        batched: Callable[[RunBatch], Submit] | None = None,
        keep: KeepOpen | None = None,
    ) -> None:
        self.config = config
        self.meters = meters
        self.shelf = ModelShelf(config, self._load, keep)
        self.cache = AnswerCache(config.cached_answers)
        batcher = Batcher(self.run_batch, config.max_batch_size, config.batch_wait_timeout_s, self._observe_queue)
        self.submit = batched(self.run_batch) if batched else batcher.submit
        self.probe = GoldenProbe(config.golden_check_period_s)
        # the Captioner takes one caller at a time, and torch counts its threads per calling thread
        self._model_thread = ThreadPoolExecutor(1, "model", lambda: torch.set_num_threads(config.torch_threads))
        self._batch_since_s: float | None = None

    @property
    def slot(self) -> ModelSlot:
        """Where the model sits that answers if none is named."""
        return self.shelf.slot

    def put_models(self, bundle: str, version: str = "", named: Mapping[str, str] | None = None) -> str:
        """Replace the models (blocking); see ModelShelf.put. Returns the version of the default one."""
        before = self.slot.version
        try:
            loaded = self.shelf.put(bundle, version, named)
        except ServingError as error:
            self.meters.count("vlm_model_loads", outcome="refused")
            serving = self.slot.version or "no model"
            log_event("bundle refused", 40, bundle=bundle, version=version, error=str(error), still_serving=serving)
            raise
        self.meters.count("vlm_model_loads", outcome="loaded")
        if before:
            self.meters.gauge("vlm_model_info", 0, model=self.config.model_name, version=before)
        self.meters.gauge("vlm_model_info", 1, model=self.config.model_name, version=loaded)
        log_event("bundle loaded", bundle=bundle, version=loaded)
        return loaded

    async def state(self, fresh: bool = False) -> EngineState:
        """The models as they are now; `fresh` changes nothing here."""
        return self.shelf.state()

    async def caption(self, job: CaptionJob) -> JobResult:
        """Caption the pictures of a job, each in whatever batch comes next; a picture's error is its own.

        Raises NotReadyError, UnknownModelError, TimeoutError once `left_s` is over.
        """
        async with asyncio.timeout(job.left_s):
            captioner = await self.shelf.captioner(job.card.name)
            card = self.shelf.card_of(job.card.name, captioner)
            if job.encoded:
                pixels = await asyncio.to_thread(self._decode, job.encoded, captioner)
            elif card.contract != job.card.contract:
                return JobResult(card)
            else:
                pixels = list(job.pixels)
            options = replace(captioner.options, **job.options)
            return await self._caption(card, pixels, job.sha256, Item(pixels[0], captioner, options, job.explain))

    async def run_batch(self, items: list[Item]) -> list[Outcome]:
        """Caption a batch in the model's thread; an item's error is its own outcome, never the batch's."""
        self.meters.observe("vlm_batch_pictures", len(items))
        return await asyncio.get_running_loop().run_in_executor(self._model_thread, self._caption_items, items)

    def check_health(self) -> None:
        """Raise ServingError if the model has been at one batch for longer than `stuck_batch_s`, or forgot its golden
        caption."""
        since_s = self._batch_since_s
        if since_s is not None and time.perf_counter() - since_s > self.config.stuck_batch_s:
            raise ServingError(f"A batch has run for more than {self.config.stuck_batch_s} s: the model is stuck.")
        self.probe.check()

    def probe_golden(self) -> None:
        """Let the golden picture ride along in a batch if it is time to; `check_health` tells what came of it later."""
        captioner = self.slot.captioner
        if captioner is not None:
            self.probe.start_if_due(captioner, self._caption_one)

    def close(self) -> None:
        """Let the model's thread go."""
        self._model_thread.shutdown(wait=False)

    async def _caption(
        self, card: ModelCard, pixels: Sequence[NDArray[np.uint8]], sha256: Sequence[str], like: Item
    ) -> JobResult:
        keys = [(pass_of(like), digest) for digest in sha256]
        results: list[Caption | ServingError | None] = [self.cache.get(key) for key in keys]
        missing = [index for index, result in enumerate(results) if result is None]
        outcomes = await asyncio.gather(*(self.submit(replace(like, pixels=pixels[index])) for index in missing))
        for index, outcome in zip(missing, outcomes, strict=True):
            results[index] = outcome.result
            if isinstance(outcome.result, Caption):
                self.cache.put(keys[index], outcome.result)
        hits = len(keys) - len(missing)
        self.meters.count("vlm_cache_hits", hits)
        spent_s = max((o.finished_s for o in outcomes), default=0) - min((o.started_s for o in outcomes), default=0)
        return JobResult(card, [one for one in results if one is not None], 1000 * spent_s, hits)

    async def _caption_one(self, pixels: NDArray[np.uint8], captioner: Captioner) -> Caption | ServingError:
        return (await self.submit(Item(pixels, captioner, captioner.options))).result

    def _decode(self, encoded: Sequence[bytes], captioner: Captioner) -> list[NDArray[np.uint8]]:
        contract, limits = captioner.bundle.contract, self.config.limits
        return [decode_for_model(data, contract, limits).pixels for data in encoded]

    def _caption_items(self, items: list[Item]) -> list[Outcome]:
        self._batch_since_s = started_s = time.perf_counter()
        try:
            outcomes = caption_items(items)
        finally:
            self._batch_since_s = None
        self._count_batch(outcomes, items[0].captioner.device.type, time.perf_counter() - started_s)
        return outcomes

    def _count_batch(self, outcomes: Sequence[Outcome], device: str, busy_s: float) -> None:
        self.meters.count("vlm_model_busy_seconds", busy_s, device=device)
        self.meters.count("vlm_tokens", sum(o.result.token_count for o in outcomes if isinstance(o.result, Caption)))
        CPU_CLOCK.count(self.meters)
        if device == "cuda":
            self.meters.gauge("vlm_gpu_memory_bytes", torch.cuda.memory_allocated(), kind="allocated")
            self.meters.gauge("vlm_gpu_memory_bytes", torch.cuda.memory_reserved(), kind="reserved")

    def _observe_queue(self, depth: int) -> None:
        self.meters.gauge("vlm_queued_pictures", depth)

    def _observe_stage(self, stage: str, seconds: float) -> None:
        self.meters.observe("vlm_stage_seconds", seconds, stage=stage)

    def _load(self, bundle: str, version: str) -> Captioner:
        """In a thread that ends with it. OpenMP keeps helpers for each thread that has computed, for as long as that
        lives, and with more of them than cores all go to sleep at every step: a fifth of BLIP-base's time was waking.
        """
        with ThreadPoolExecutor(1, "load") as loading:
            return loading.submit(self._load_here, bundle, version).result()

    def _load_here(self, bundle: str, version: str) -> Captioner:
        config = self.config
        settings: dict[str, Any] = {
            "device": config.device,
            "precision": config.precision,
            "threads": config.torch_threads,
            "attention": config.attention,
        }
        captioner = load_captioner(bundle, version, **settings)
        if config.warm_up:
            warm_up(captioner, config.max_batch_size)
        captioner.on_stage = self._observe_stage  # of traffic, not of warming up
        return captioner


def warm_up(captioner: Captioner, max_batch_size: int) -> None:
    """Caption black pictures before traffic does: kernels are chosen, memory is taken. The largest batch, and one.

    On a GPU the powers of two between as well: each has graphs of its own.
    """
    side_px = captioner.bundle.contract.image_size_px
    between = {1 << power for power in range(max_batch_size.bit_length())} if captioner.device.type == "cuda" else {1}
    for size in sorted({max_batch_size, *between}, reverse=True):
        captioner.caption_pixels(np.zeros((size, 3, side_px, side_px), np.uint8))


def pass_of(item: Item) -> Hashable:
    """Equal for items that can go through the model in one pass; with the picture, all that its caption hangs on."""
    return item.captioner.version, item.options, item.explain


def caption_items(items: Sequence[Item]) -> list[Outcome]:
    """Caption items that may differ in model and options, in as few passes as possible; results in their order."""
    groups: dict[Hashable, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(pass_of(item), []).append(index)
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
