"""The playground in a browser, over a real captioner: words, how sure, where it looked; by pointer and keyboard."""

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import SCREENSHOTS
from tests.serving import make_service, over_http
from tests.tiny import picture_bytes, tiny_bundle
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Caption, Captioner
from vlm_serving.config import ServingConfig
from vlm_serving.engine import LocalEngine
from vlm_serving.feedback_log import read_feedback
from vlm_serving.images import decode_picture
from vlm_serving.request_log import RequestLog
from vlm_serving.security import key_line, new_key
from vlm_serving.service import CaptionService
from vlm_serving.telemetry import MemoryMeters
from vlm_serving.web import create_web

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

SEEDS = (3, 4, 5)
PHONE_PX, DESK_PX = 360, 1200
CONTRAST = Path(__file__).with_name("contrast.js").read_text()
DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (byte) => byte.charCodeAt(0)), moved = new DataTransfer();
  moved.items.add(new File([bytes], "moved.png", {type: "image/png"}));
  const Kind = name === "paste" ? ClipboardEvent : DragEvent;
  const options = name === "paste" ? {clipboardData: moved} : {dataTransfer: moved};
  document.body.dispatchEvent(new Kind(name, {bubbles: true, cancelable: true, ...options}));
}"""


class Peaked(Captioner):
    """Looks, for the n-th word, at the n-th patch and nowhere else: random weights look everywhere alike."""

    def caption_pixels(self, pixels: Any, options: Any = None, **asked: Any) -> list[Caption]:
        captions = super().caption_pixels(pixels, options, **asked)
        return [replace(one, heat=one.heat if one.heat is None else peaks(*one.heat.shape[:2])) for one in captions]


class PeakedEngine(LocalEngine):
    def _load(self, bundle: str, version: str) -> Captioner:
        return Peaked(open_bundle(Path(bundle)), device="cpu", threads=1)


def peaks(words: int, side: int) -> np.ndarray:
    return 255 * np.eye(words, side * side, dtype=np.uint8).reshape(words, side, side)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> CaptionService:
    bundle = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", image_size_px=64)
    config, meters = ServingConfig(device="cpu"), MemoryMeters()
    log = RequestLog(tmp_path_factory.mktemp("log"))
    service = CaptionService(config, meters, log, engine=PeakedEngine(config, meters))
    service.put_model(str(bundle))
    return service


@pytest.fixture(scope="module")
def address(service: CaptionService) -> Iterator[str]:
    with over_http(create_web(lambda: service)) as url:
        yield url


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A fresh page; whatever it asks of another host, and whatever goes wrong in it, fails the test."""
    context = browser.new_context(viewport={"width": DESK_PX, "height": 900})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.extend([said.text] if "Content Security Policy" in said.text else []))
    page.on("request", lambda one: faults.extend([] if one.url.startswith((address, "blob:", "data:")) else [one.url]))
    page.goto(address)
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{seed}.png" for seed in SEEDS]
    for path, seed in zip(paths, SEEDS, strict=True):
        path.write_bytes(picture_bytes(seed))
    return paths


@pytest.fixture(scope="module")
def own(service: CaptionService) -> Caption:
    """What the model itself says of the first picture."""
    said = service.slot.current().caption([decode_picture(picture_bytes(SEEDS[0]))])[0]
    assert len(said.words) > 3
    return said


def choose(page: Page, *files: Path) -> None:
    page.locator("#file").set_input_files(list(files))


def words(page: Page) -> Any:
    return page.locator("#caption .word")


def brightest(page: Page) -> int:
    """Which patch of the overlay is lit most, by rows; -1 if there is no overlay."""
    return page.evaluate(
        """() => {
          const canvas = document.getElementById("heat");
          if (canvas.hidden) return -1;
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          const alphas = [...data].filter((_, at) => at % 4 === 3);
          return alphas.indexOf(Math.min(...alphas));
        }"""
    )


def shown(share: float) -> str:
    return "under 1 %" if share < 0.01 else f"{int(100 * share + 0.5)} %"


def test_a_chosen_picture_gets_its_caption_confidence_time_and_version(
    page: Page, files: list[Path], own: Caption, service: CaptionService
) -> None:
    page.get_by_role("button", name="Choose pictures").wait_for()
    choose(page, files[0])
    expect(words(page)).to_have_text([word.text for word in own.words])
    expect(page.locator("#confidence")).to_have_text(shown(own.confidence))
    expect(page.locator("#latency")).to_have_text(re.compile(r"^\d+ ms$|^\d\.\d\d s$"))
    expect(page.locator("#version")).to_have_text(service.slot.version)
    expect(page.locator("#heard")).to_have_text(f"{own.text}. Confidence {shown(own.confidence)}.")
    expect(page.locator("#picture")).to_have_attribute("alt", own.text)


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_can_be_dropped_and_pasted(page: Page, own: Caption, way: str) -> None:
    page.evaluate(DROP, [way, base64.b64encode(picture_bytes(SEEDS[0])).decode()])
    expect(words(page)).to_have_text([word.text for word in own.words])


def test_pointing_at_a_word_tells_how_sure_and_lights_where_the_model_looked(
    page: Page, files: list[Path], own: Caption
) -> None:
    choose(page, files[0])
    for number in (0, 2):
        words(page).nth(number).hover()
        expect(page.locator("#readout")).to_contain_text(
            f"“{own.words[number].text}” {shown(own.words[number].probability)}"
        )
        assert brightest(page) == number
    page.mouse.move(0, 0)
    expect(page.locator("#heat")).to_be_hidden()


def test_the_line_under_a_word_is_as_long_as_the_model_was_sure(page: Page, files: list[Path], own: Caption) -> None:
    choose(page, files[0])
    expect(words(page)).to_have_count(len(own.words))
    shares = page.evaluate(
        "[...document.querySelectorAll('.word')].map((word) => "
        "word.querySelector('b').getBoundingClientRect().width / word.querySelector('i').getBoundingClientRect().width)"
    )
    assert shares == pytest.approx([word.probability for word in own.words], abs=0.02)


def test_a_tap_keeps_the_map_until_the_next(page: Page, files: list[Path]) -> None:
    choose(page, files[0])
    words(page).nth(1).click()
    page.mouse.move(0, 0)
    expect(page.locator("#heat")).to_be_visible()
    expect(words(page).nth(1)).to_have_attribute("aria-pressed", "true")
    words(page).nth(1).click()
    page.mouse.move(0, 0)
    expect(page.locator("#heat")).to_be_hidden()


def test_the_keyboard_alone_is_enough(page: Page, files: list[Path], own: Caption) -> None:
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()
        page.keyboard.press("Enter")
    chooser.value.set_files(files[0])
    expect(words(page)).to_have_count(len(own.words))
    page.get_by_role("button", name="Add pictures").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(words(page).nth(1)).to_be_focused()
    expect(words(page).nth(1)).to_have_attribute(
        "aria-label", f"{own.words[1].text}, {shown(own.words[1].probability)}"
    )
    assert brightest(page) == 1
    page.keyboard.press("Tab")  # a caption is one stop
    expect(page.get_by_role("button", name="Correct it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("What it should say")).to_be_focused()


def test_of_several_pictures_the_bad_one_tells_why_and_the_others_are_captioned(
    page: Page, files: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "notes.jpg"
    bad.write_text("not a picture")
    choose(page, files[0], bad, files[1])
    strip = page.locator("#history button")
    expect(strip).to_have_count(3)  # newest first
    expect(strip.nth(1)).to_have_text("not captioned")
    expect(words(page).first).to_be_visible()
    strip.nth(1).click()
    expect(page.locator("#problem-title")).to_have_text("The picture's format is not supported")
    expect(page.locator("#problem-detail")).to_have_text(re.compile(r"^The bytes are not a readable picture"))
    expect(page.locator("#unseen")).to_contain_text("notes.jpg")
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()  # the picture would be as bad
    strip.nth(0).click()
    expect(words(page).first).to_be_visible()


def test_options_reach_the_model(page: Page, files: list[Path], service: CaptionService) -> None:
    choose(page, files[0])
    expect(words(page).first).to_be_visible()
    page.locator("summary", has_text="Options").click()
    with page.expect_response("**/v1/captions?*") as answered:
        page.get_by_label("Longest caption, tokens").fill("2")
        page.get_by_label("Longest caption, tokens").press("Tab")
    assert answered.value.json()["captions"][0]["token_count"] == 2
    expect(page.locator("#options-now")).to_have_text("at most 2 tokens")
    with page.expect_request("**/v1/captions?*num_beams=1*"):
        page.get_by_role("radio", name="Greedy").check()
    expect(page.locator("#curl")).to_have_text(re.compile(r"explain=true&num_beams=1&max_new_tokens=2"))


def test_other_captions_are_told_on_request_and_can_be_taken_as_the_correction(page: Page, files: list[Path]) -> None:
    choose(page, files[0])
    with page.expect_response("**/v1/captions?*num_captions=3*") as answered:
        page.get_by_role("button", name="Other captions?").click()
    told = answered.value.json()["captions"][0]["alternatives"]
    assert len(told) == 2
    others = page.locator("#others button")
    expect(others).to_have_text([f"{other['text']}{shown(other['confidence'])}" for other in told])
    others.last.click()
    expect(page.get_by_label("What it should say")).to_have_value(told[-1]["text"])


def test_a_correction_is_kept_with_the_captions_id(page: Page, files: list[Path], service: CaptionService) -> None:
    with page.expect_response("**/v1/captions?*") as answered:
        choose(page, files[0])
    page.get_by_role("button", name="Correct it").click()
    page.get_by_label("What it should say").fill("  a red coat ")
    page.get_by_role("button", name="Send correction").click()
    expect(page.locator("#note")).to_have_text("Thank you. Noted: “a red coat”")
    expect(page.locator("#correction")).to_be_hidden()
    assert service.feedback is not None
    (row,) = read_feedback(service.feedback.directory)
    assert (row.caption_id, row.caption) == (answered.value.json()["captions"][0]["id"], "a red coat")


def test_a_correction_that_is_refused_stays_and_says_why(page: Page, files: list[Path]) -> None:
    problem = {"title": "No", "status": 422, "detail": "A caption has at most 3 words."}
    page.route("**/v1/feedback", lambda route: route.fulfill(status=422, json=problem))
    choose(page, files[0])
    page.get_by_role("button", name="Correct it").click()
    page.get_by_label("What it should say").fill("far too many words")
    page.get_by_role("button", name="Send correction").click()
    expect(page.locator("#note")).to_have_text("Not sent. A caption has at most 3 words.")
    expect(page.locator("#heard")).to_have_text("Not sent. A caption has at most 3 words.")
    expect(page.get_by_label("What it should say")).to_have_value("far too many words")


def test_a_key_goes_with_every_call_and_lives_as_long_as_the_tab(page: Page, files: list[Path]) -> None:
    page.locator("summary", has_text="Options").click()
    page.get_by_label("API key").fill("s3cret")
    with page.expect_request("**/v1/captions?*") as asked:
        choose(page, files[0])
    assert asked.value.headers["authorization"] == "Bearer s3cret"
    page.get_by_label("API key").press("Tab")
    assert "s3cret" not in page.locator("#curl").inner_text()
    page.reload()
    expect(page.get_by_label("API key")).to_have_value("s3cret")
    assert page.evaluate("localStorage.length + document.cookie.length") == 0


def test_without_a_valid_key_the_field_for_it_opens(browser: Browser, files: list[Path], tmp_path: Path) -> None:
    key, digest = new_key()
    (tmp_path / "keys").write_text(key_line("ann", digest) + "\n")
    service = make_service(tiny_bundle(tmp_path / "bundle"), api_keys_file=str(tmp_path / "keys"))
    with over_http(create_web(lambda: service)) as url:
        page = browser.new_page()
        page.goto(url)
        choose(page, files[0])
        expect(page.locator("#problem")).to_contain_text("key")
        page.get_by_label("API key").fill("wrong")
        page.get_by_label("API key").press("Enter")
        expect(page.locator("#problem")).to_contain_text("key")
        page.get_by_label("API key").fill(key)
        page.get_by_label("API key").press("Enter")
        expect(words(page).first).to_be_visible()
        page.close()


def test_a_server_that_is_gone_can_be_asked_again(page: Page, files: list[Path]) -> None:
    page.route("**/v1/captions?*", lambda route: route.abort())
    choose(page, files[0])
    expect(page.locator("#problem-title")).to_have_text("The server was not reached")
    page.unroute("**/v1/captions?*")
    page.get_by_role("button", name="Try again").click()
    expect(words(page).first).to_be_visible()


@pytest.mark.parametrize("width_px", [PHONE_PX, DESK_PX])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_out_and_all_text_can_be_read(
    browser: Browser, address: str, files: list[Path], tmp_path: Path, width_px: int, scheme: Any
) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3) in each state of the page."""
    context = browser.new_context(
        viewport={"width": width_px, "height": 780}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(address)
    page.locator("#status.ready").wait_for()

    def check(state: str) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"playground_{state}_{scheme}_{width_px}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px, state
        assert page.evaluate(CONTRAST) == [], state

    check("empty")
    bad = tmp_path / "bad.png"
    bad.write_text("no")
    choose(page, *files, bad)
    expect(page.locator("#history .bad")).to_have_count(1)
    page.get_by_role("button", name="Other captions?").click()
    page.locator("#others button").last.click()
    page.locator("summary", has_text="Options").click()
    words(page).nth(1).click()
    check("captioned")
    page.locator("#history .bad").click()
    check("refused")
    context.close()
