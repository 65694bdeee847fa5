"""What a replica does beneath HTTP: swapping models, sharing batches, refusing what is too much, logging."""

import asyncio
import io
import json
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving import BAD, encode, make_client, make_service
from tests.tiny import picture_bytes
from vlm_serving import segment_log
from vlm_serving.bundle import open_bundle, seal_bundle
from vlm_serving.captioner import Caption, Captioner
from vlm_serving.engine import Item, Outcome, RunBatch, Submit, caption_items
from vlm_serving.errors import BundleError, NotReadyError, OverloadedError, PictureFailedError, ServingError
from vlm_serving.generation import GenerationOptions
from vlm_serving.request_log import RequestLog, read_request_log
from vlm_serving.service import Upload

PNG = Upload("one", picture_bytes(1))


def gathered(size: int):
    """A batcher that waits until `size` items are there: what the model then sees is known exactly."""

    def batched(run_batch: RunBatch) -> Submit:
        waiting: list[tuple[Item, asyncio.Future[Outcome]]] = []

        async def submit(item: Item) -> Outcome:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            waiting.append((item, future))
            if len(waiting) == size:
                for (_, done), outcome in zip(waiting, await run_batch([one for one, _ in waiting]), strict=True):
                    done.set_result(outcome)
                waiting.clear()
            return await future

        return submit

    return batched


class Allergic(Captioner):
    """A captioner that raises whenever a batch holds a picture whose first pixel is that of `poison`."""

    poison = -1
    passes: Sequence[int] = ()

    def caption_pixels(self, pixels, options=None, **asked) -> list[Caption]:
        self.passes = [*self.passes, len(pixels)]
        if self.poison in pixels[:, 0, 0, 0]:
            raise RuntimeError("CUDA error: device-side assert")
        return super().caption_pixels(pixels, options, **asked)


def test_a_failed_bundle_leaves_the_old_one_serving_and_says_so(bundle: Path, tmp_path: Path) -> None:
    service = make_service(bundle)
    before = service.slot.version
    with pytest.raises(BundleError, match="There is no model bundle at"):
        service.put_model(str(tmp_path / "none"), "abc")
    ready = make_client(service).get("/readyz")
    assert (ready.status_code, ready.json()["model"]["version"], ready.json()["refused"]) == (200, before, "abc")
    assert "There is no model bundle" in ready.json()["error"]
    assert make_client(service).post("/v1/captions", files={"files": PNG.data}).status_code == 200


def test_a_good_bundle_after_a_bad_one_clears_the_error(bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    service = make_service(bundle)
    with pytest.raises(BundleError):
        service.put_model(str(tmp_path / "none"))
    version = open_bundle(other_bundle).version
    assert service.put_model(str(other_bundle), version) == version
    state = make_client(service).get("/readyz").json()
    assert (state["model"]["version"], state["error"], state["refused"]) == (version, "", "")


def test_the_wrong_version_and_altered_files_are_refused(bundle: Path, tmp_path: Path) -> None:
    service = make_service(None)
    with pytest.raises(BundleError, match="0123 was asked for"):
        service.put_model(str(bundle), "0123")
    altered = shutil.copytree(bundle, tmp_path / "altered")
    with (altered / "model.safetensors").open("r+b") as weights:
        weights.seek(-4, 2)
        weights.write(b"\1\2\3\4")
    with pytest.raises(BundleError, match=r"model\.safetensors.*was altered"):
        service.put_model(str(altered))
    with pytest.raises(NotReadyError, match=r"No model serves yet: model\.safetensors"):
        service.slot.current()


def test_a_bundle_that_sees_otherwise_than_recorded_is_refused(bundle: Path, tmp_path: Path) -> None:
    skewed = shutil.copytree(bundle, tmp_path / "skewed")
    golden = json.loads((skewed / "golden.json").read_text())
    golden[1]["embedding"] = golden[1]["embedding"][::-1]
    (skewed / "golden.json").write_text(json.dumps(golden))
    (skewed / "bundle.json").unlink()
    seal_bundle(skewed, {})
    with pytest.raises(BundleError, match="cosine"):
        make_service(bundle).put_model(str(skewed))


def test_requests_caught_in_a_swap_are_answered_by_the_model_they_were_prepared_for(
    bundle: Path, other_bundle: Path
) -> None:
    """One batch holds pictures of 32 and of 48 pixels for two models; each gets what it would get alone."""
    service = make_service(bundle, batched=gathered(2))

    async def both() -> list[str]:
        first = asyncio.create_task(service.caption([PNG], "a"))
        while not service.admission.waiting or not service.slot.version:
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)  # the first is decoded and waits for company
        await asyncio.to_thread(service.put_model, str(other_bundle))
        second = await service.caption([PNG], "b")
        return [(await first).version, second.version]

    assert asyncio.run(both()) == [open_bundle(bundle).version, open_bundle(other_bundle).version]


def test_a_poisonous_picture_harms_nobody_else(bundle: Path) -> None:
    captioner = Allergic(open_bundle(bundle), device="cpu", threads=1)
    pixels = [np.full((3, 32, 32), value, dtype=np.uint8) for value in (10, 66, 30)]
    items = [Item(one, captioner, GenerationOptions()) for one in pixels]
    expected = [outcome.result for outcome in caption_items(items)]
    captioner.poison, captioner.passes = 66, []
    outcomes = [outcome.result for outcome in caption_items(items)]
    assert captioner.passes == [3, 1, 1, 1]
    assert isinstance(outcomes[1], PictureFailedError)
    for index in (0, 2):
        assert isinstance(outcomes[index], Caption) and outcomes[index].text == expected[index].text


def test_pictures_with_different_options_share_a_batch_but_not_a_pass(bundle: Path) -> None:
    captioner = Allergic(open_bundle(bundle), device="cpu", threads=1)
    pixels = np.zeros((3, 32, 32), dtype=np.uint8)
    options = [GenerationOptions(max_new_tokens=2), GenerationOptions(), GenerationOptions(max_new_tokens=2)]
    outcomes = caption_items([Item(pixels, captioner, one) for one in options])
    assert captioner.passes == [2, 1]
    assert [outcome.result.token_count <= 2 for outcome in outcomes] == [True, False, True]


def test_overload_is_refused_at_once_and_ends(bundle: Path) -> None:
    service = make_service(bundle, batched=gathered(2), max_pictures=2, max_waiting_pictures=2)

    async def scene() -> None:
        first = asyncio.create_task(service.caption([PNG], "a"))
        while service.admission.waiting < 1:
            await asyncio.sleep(0)
        with pytest.raises(
            OverloadedError, match=r"1 pictures are in work; the limit is 2 at present\. Try again in 1 s"
        ):
            await service.caption([PNG, PNG], "b")
        await asyncio.gather(first, service.caption([PNG], "c"))
        assert service.admission.waiting == 0

    asyncio.run(scene())


def test_a_refused_picture_gives_its_place_back(bundle: Path) -> None:
    service = make_service(bundle)
    make_client(service).post("/v1/captions", files={"files": BAD["empty"][0]})
    assert service.admission.waiting == 0


def test_a_picture_that_takes_too_long_to_decode_is_a_504_and_the_next_one_is_answered(bundle: Path) -> None:
    service = make_service(bundle, decode_threads=1)
    client = make_client(service)
    large = encode(Image.new("RGB", (6000, 4000)), "PNG")
    late = client.post("/v1/captions", files={"files": large}, headers={"x-request-timeout-s": "0.02"})
    assert (late.status_code, service.admission.waiting) == (504, 0)
    assert client.post("/v1/captions", files={"files": PNG.data}).status_code == 200


def test_a_stuck_model_fails_its_health_check(bundle: Path) -> None:
    service = make_service(bundle, stuck_batch_s=0.001)
    service.check_health()
    service.engine._batch_since_s = 1.0  # long ago on the performance counter
    with pytest.raises(ServingError, match="the model is stuck"):
        service.check_health()


def test_each_caption_leaves_one_row(bundle: Path, tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log", flush_s=0.05)
    service = make_service(bundle, log)
    client = make_client(service)
    files = [("files", picture_bytes(seed)) for seed in range(3)]
    body = client.post("/v1/captions", files=files).json()
    client.post("/v1/captions", files=[("files", b"no picture")])
    service.close()
    rows = read_request_log(tmp_path / "log").to_pylist()
    assert [row["request_id"] for row in rows] == [caption["id"] for caption in body["captions"]]
    assert [row["caption"] for row in rows] == [caption["text"] for caption in body["captions"]]
    assert {row["model_version"] for row in rows} == {service.slot.version}
    assert all((row["width_px"], row["height_px"], len(row["embedding"])) == (40, 30, 32) for row in rows)
    assert all(0 < row["brightness"] < 1 and row["latency_ms"] > 0 for row in rows)
    assert [row["thumbnail"] for row in rows] == [None] * 3


def test_thumbnails_are_kept_if_asked_for(bundle: Path, tmp_path: Path) -> None:
    """A picture that lies on its side, red above blue once it stands, twice as high as wide."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.new("RGB", (200, 100), "blue")
    lying.paste("red", (0, 0, 100, 100))
    service = make_service(bundle, RequestLog(tmp_path), request_log_thumbnail_px=40)
    make_client(service).post("/v1/captions", files={"files": encode(lying, "JPEG", exif=exif)})
    service.close()
    [row] = read_request_log(tmp_path).to_pylist()
    small = Image.open(io.BytesIO(row["thumbnail"]))
    assert (small.format, small.size) == ("JPEG", (20, 40))
    pixels = np.asarray(small)
    top, bottom = pixels[5, 10], pixels[35, 10]
    assert top[0] > 200 > 60 > top[2] and bottom[2] > 200 > 60 > bottom[0]


def test_a_log_that_cannot_keep_up_costs_rows_and_no_request(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, writing = threading.Event(), threading.Event()
    monkeypatch.setattr(segment_log, "to_table", lambda *_: (writing.set(), held.wait(60)))
    log = RequestLog(tmp_path / "log", flush_s=0.001, max_queued_rows=3)
    service = make_service(bundle, log)
    client = make_client(service)
    statuses = [client.post("/v1/captions", files={"files": picture_bytes(0)}).status_code]
    assert writing.wait(5)
    statuses += [client.post("/v1/captions", files={"files": picture_bytes(seed)}).status_code for seed in range(8)]
    assert statuses == [200] * 9
    assert service.meters.counts[("vlm_request_log_dropped",)] == 5  # type: ignore[attr-defined]
    held.set()


def test_rows_that_the_disk_refused_are_counted_at_the_next_request(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    log = RequestLog(tmp_path / "file", flush_s=0.001)
    service = make_service(bundle, log)
    client, deadline_s = make_client(service), time.monotonic() + 10
    client.post("/v1/captions", files={"files": picture_bytes(0)})
    while not log.dropped and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert client.post("/v1/captions", files={"files": picture_bytes(1)}).status_code == 200
    assert service.meters.counts[("vlm_request_log_dropped",)] >= 1  # type: ignore[attr-defined]
    service.close()
