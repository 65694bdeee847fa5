"""Front and engine apart: swaps between them, models by name, deadlines, answers kept, the golden picture again."""

import asyncio
import base64
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch

from tests.serving import make_client, make_service
from tests.tiny import picture_bytes, tiny_bundle
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.config import ServingConfig
from vlm_serving.engine import Item, LocalEngine, Outcome, RunBatch, Submit
from vlm_serving.errors import BundleError, DeadlineExceededError, NotReadyError, ServingError, UnknownModelError
from vlm_serving.exchange import CaptionJob, EngineState, JobResult
from vlm_serving.service import CaptionService, Upload
from vlm_serving.telemetry import MemoryMeters
from vlm_serving.web import create_web

PNG = Upload("one", picture_bytes(1))
IMAGE = {"content-type": "image/png"}


class Across:
    """An engine as if behind a hop: what crosses is pickled, and the models are those of the last answer."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.heard = EngineState("captioner")
        self.jobs: list[CaptionJob] = []

    async def state(self, fresh: bool = False) -> EngineState:
        if fresh or not self.heard.cards:
            self.heard = pickle.loads(pickle.dumps(await self.engine.state()))
        return self.heard

    async def caption(self, job: CaptionJob) -> JobResult:
        self.jobs.append(job)
        return pickle.loads(pickle.dumps(await self.engine.caption(pickle.loads(pickle.dumps(job)))))


def never(run_batch: RunBatch) -> Submit:
    """A batcher whose model never gets to work."""

    async def submit(item: Item) -> Outcome:
        return await asyncio.get_running_loop().create_future()

    return submit


def ask(service: CaptionService, *uploads: Upload, **arguments):
    return asyncio.run(service.caption(uploads or (PNG,), "r", **arguments))


def test_a_model_of_another_size_that_takes_over_gets_the_files(bundle: Path, other_bundle: Path) -> None:
    engine = make_service(bundle).engine
    across = Across(engine)
    service = CaptionService(ServingConfig(device="cpu"), MemoryMeters(), engine=across)
    alone = make_service(other_bundle)
    assert ask(service).version == open_bundle(bundle).version
    engine.put_models(str(other_bundle))
    answer = ask(service)
    assert answer.version == open_bundle(other_bundle).version
    assert answer.captions[0].text == ask(alone).captions[0].text
    assert [bool(job.encoded) for job in across.jobs] == [False, False, True]


def test_loading_a_model_leaves_no_threads_behind(bundle: Path) -> None:
    """Idle helpers of OpenMP slow the model down wherever it has several threads."""
    service = make_service(None, torch_threads=2)
    with ThreadPoolExecutor(1) as caller:  # lives on, as asyncio's threads do
        caller.submit(int).result()
        threads = psutil.Process().num_threads()
        caller.submit(service.put_model, str(bundle)).result()
        end_s = time.monotonic() + 10
        while psutil.Process().num_threads() > threads and time.monotonic() < end_s:
            time.sleep(0.01)
        assert psutil.Process().num_threads() <= threads


def test_a_model_of_the_same_size_that_takes_over_answers_at_once(bundle: Path, tmp_path: Path) -> None:
    engine = make_service(bundle).engine
    across = Across(engine)
    service = CaptionService(ServingConfig(device="cpu"), MemoryMeters(), engine=across)
    ask(service)
    version = engine.put_models(str(tiny_bundle(tmp_path / "new", seed=5)))
    assert ask(service).version == version
    assert len(across.jobs) == 2


@pytest.fixture(scope="module")
def named(bundle: Path, other_bundle: Path) -> CaptionService:
    service = make_service(None, max_named_models=1)
    service.put_model(str(bundle), named={"shoes": str(other_bundle), "hats": str(bundle)})
    return service


def test_models_answer_by_name(named: CaptionService, bundle: Path, other_bundle: Path) -> None:
    client = make_client(named)
    versions = {"captioner": open_bundle(bundle).version, "shoes": open_bundle(other_bundle).version}
    assert client.get("/v1/models").json()["models"] == [
        {"name": name, "version": versions.get(name, versions["captioner"])} for name in ("captioner", "hats", "shoes")
    ]
    by_query = client.post("/v1/captions?model=shoes", content=PNG.data, headers=IMAGE).json()
    picture = {"base64": base64.b64encode(PNG.data).decode()}
    by_json = client.post("/v1/captions", json={"images": [picture], "model": "shoes"}).json()
    first = client.post("/v1/captions?model=captioner", content=PNG.data, headers=IMAGE).json()
    assert by_query["model"] == by_json["model"] == {"name": "shoes", "version": versions["shoes"]}
    assert by_query["captions"][0]["text"] == by_json["captions"][0]["text"]
    assert first["model"] == {"name": "captioner", "version": versions["captioner"]}


def test_an_unknown_model_is_a_404_that_names_the_known(named: CaptionService) -> None:
    answer = make_client(named).post("/v1/captions?model=cars", content=PNG.data, headers=IMAGE)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:vlm-captioning:problem:unknown-model")
    assert answer.json()["detail"] == (
        "There is no model 'cars'; known are: captioner, hats, shoes. Ask for one of them."
    )


def test_no_more_named_models_are_kept_than_allowed(named: CaptionService) -> None:
    for name in ("shoes", "hats", "hats"):
        ask(named, model=name)
    assert list(named.engine.shelf._open) == ["hats"]  # type: ignore[attr-defined]


def test_a_model_that_loads_longer_than_a_request_waits_is_there_for_the_next(bundle: Path) -> None:
    service = make_service(None)
    service.put_model(str(bundle), named={"shoes": str(bundle)})
    shelf = service.engine.shelf  # type: ignore[attr-defined]
    loads: list[str] = []
    real = shelf._load

    def slowly(source: str, version: str) -> Captioner:
        loads.append(version)
        time.sleep(0.3)
        return real(source, version)

    shelf._load = slowly

    async def scene() -> str:
        with pytest.raises(DeadlineExceededError):
            await service.caption([PNG], "a", model="shoes", timeout_s=0.1)
        return (await service.caption([PNG], "b", model="shoes")).model

    assert (asyncio.run(scene()), len(loads)) == ("shoes", 1)


def test_a_named_model_is_exchanged_like_the_first(bundle: Path, other_bundle: Path) -> None:
    service = make_service(None)
    service.put_model(str(bundle), named={"shoes": str(bundle)})
    ask(service, model="shoes")
    service.put_model(str(bundle), named={"shoes": str(other_bundle)})
    assert ask(service, model="shoes").version == open_bundle(other_bundle).version
    service.put_model(str(bundle), named={})
    with pytest.raises(UnknownModelError, match="no model 'shoes'; known are: captioner"):
        ask(service, model="shoes")


def test_a_bad_named_bundle_is_refused_with_all_that_came_with_it(
    bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    service = make_service(bundle)
    with pytest.raises(BundleError, match=r"models\.shoes: There is no model bundle at"):
        service.put_model(str(other_bundle), "v", {"shoes": str(tmp_path / "none")})
    ready = make_client(service).get("/readyz").json()
    assert (ready["model"]["version"], ready["refused"]) == (open_bundle(bundle).version, "v")
    assert "models.shoes" in ready["error"]


def test_a_request_that_takes_too_long_is_a_504_and_leaves_no_picture_behind(bundle: Path) -> None:
    service = make_service(bundle, batched=never, deadline_s=0.2)
    client = make_client(service)
    for headers, limit in ((IMAGE, "0.2"), ({**IMAGE, "x-request-timeout-s": "0.05"}, "0.05")):
        answer = client.post("/v1/captions", content=PNG.data, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (504, "urn:vlm-captioning:problem:deadline-exceeded")
        assert f"not answered within {limit} s" in answer.json()["detail"]
        assert service.admission.waiting == 0


def test_what_is_over_before_its_turn_never_reaches_the_model(bundle: Path) -> None:
    service = make_service(bundle, max_batch_size=1, max_wait_s=0)
    seen: list[int] = []
    real = service.engine._caption_items  # type: ignore[attr-defined]

    def slowly(items: list[Item]) -> list[Outcome]:
        seen.append(len(items))
        time.sleep(0.3)
        return real(items)

    service.engine._caption_items = slowly  # type: ignore[attr-defined]

    async def scene() -> None:
        first = asyncio.create_task(service.caption([PNG], "a"))
        await asyncio.sleep(0.1)
        with pytest.raises(DeadlineExceededError):
            await service.caption([Upload("two", picture_bytes(2))] * 3, "b", timeout_s=0.1)
        await first

    asyncio.run(scene())
    assert seen == [1]


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan"])
def test_a_senseless_time_limit_is_explained(named: CaptionService, value: str) -> None:
    answer = make_client(named).post("/v1/captions", content=PNG.data, headers={**IMAGE, "x-request-timeout-s": value})
    assert answer.status_code == 422
    assert f"x-request-timeout-s is '{value}'; it must be a number of seconds above 0" in answer.json()["detail"]


def test_a_client_may_not_wait_longer_than_the_settings_allow(bundle: Path) -> None:
    client = make_client(make_service(bundle, batched=never, deadline_s=0.1))
    answer = client.post("/v1/captions", content=PNG.data, headers={**IMAGE, "x-request-timeout-s": "1e9"})
    assert "not answered within 0.1 s" in answer.json()["detail"]


def test_a_picture_that_comes_again_is_answered_without_the_model(bundle: Path, other_bundle: Path) -> None:
    service = make_service(bundle)
    first, again = ask(service), ask(service, Upload("other name", PNG.data))
    assert again.captions[0] is first.captions[0]
    batches = service.meters.values[("vlm_batch_pictures",)]  # type: ignore[attr-defined]
    hits = service.meters.counts  # type: ignore[attr-defined]
    assert (batches, hits[("vlm_cache_hits",)]) == ([1], 1)
    ask(service, asked={"max_new_tokens": 2})
    service.put_model(str(other_bundle))
    assert ask(service).version == open_bundle(other_bundle).version
    assert (batches, hits[("vlm_cache_hits",)]) == ([1, 1, 1], 1)


def test_answers_kept_are_bounded_and_can_be_turned_off(bundle: Path) -> None:
    for size, expected in ((0, 0), (2, 2)):
        service = make_service(bundle, cached_answers=size)
        for seed in range(4):
            ask(service, Upload("one", picture_bytes(seed)))
        assert len(service.engine.cache._kept) == expected  # type: ignore[attr-defined]


def test_the_golden_picture_is_asked_again_in_a_batch_with_others(bundle: Path) -> None:
    service = make_service(bundle, golden_check_period_s=0.01, warm_up=False)
    engine = service.engine
    assert isinstance(engine, LocalEngine)

    async def probe() -> None:
        await asyncio.sleep(0.02)
        engine.probe_golden()
        await engine.probe._task  # type: ignore[misc]

    asyncio.run(probe())
    service.check_health()
    model = engine.slot.current()
    with torch.no_grad():
        model.vision.post_layernorm.weight.neg_()
    asyncio.run(probe())
    with pytest.raises(ServingError, match=r"no longer captions its golden picture.*golden/0\.png.*weights differ"):
        service.check_health()
    assert make_client(service).get("/healthz").status_code == 500
    with torch.no_grad():
        model.vision.post_layernorm.weight.neg_()
    asyncio.run(probe())
    service.check_health()


def test_models_are_warm_before_they_answer(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = Captioner.caption_pixels

    def counted(self, pixels, options=None):
        sizes.append(len(pixels))
        return real(self, pixels, options)

    monkeypatch.setattr(Captioner, "caption_pixels", counted)
    make_service(bundle, max_batch_size=5)
    assert sizes[-2:] == [5, 1]


def test_without_a_model_the_engine_says_so(bundle: Path) -> None:
    service = make_service(None)
    with pytest.raises(NotReadyError, match="No model serves yet: its bundle is still being loaded"):
        ask(service)


def test_a_client_that_leaves_takes_its_pictures_out_of_the_queue(bundle: Path) -> None:
    """As ASGI tells of it; a real connection is closed in tests/integration/test_split.py."""
    service = make_service(bundle, batched=never)
    sent: list[dict[str, object]] = []

    async def scene() -> None:
        messages = iter([{"type": "http.request", "body": PNG.data}, {"type": "http.disconnect"}])
        scope = {
            "type": "http", "method": "POST", "path": "/v1/captions", "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"image/png")], "http_version": "1.1", "scheme": "http",
        }  # fmt: skip

        async def receive():
            await asyncio.sleep(0.02)
            return next(messages)

        async def send(message):
            sent.append(message)

        await create_web(lambda: service)(scope, receive, send)
        await asyncio.sleep(0)

    asyncio.run(scene())
    assert service.admission.waiting == 0
    counts = service.meters.counts  # type: ignore[attr-defined]
    assert counts[("vlm_rejected", "client-gone")] == counts[("vlm_requests", "499")] == 1
