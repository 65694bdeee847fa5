"""Pictures become the model's square: by Pillow, or by faster code that is as good, on every processor the same."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import cykooz_resizer
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from transformers import BlipImageProcessorPil

from tests.unit.vlm_serving.test_images import photograph
from vlm_serving import resizing
from vlm_serving.errors import BundleError
from vlm_serving.preprocessing import PreprocessingContract
from vlm_serving.resizing import FAST, PILLOW, check_resizer, resize_square

SIZES_PX = [(640, 480), (397, 801), (1201, 333), (90, 100), (385, 384)]
# sha256 of what the fast resizer makes of `pattern()` at 96 px: the same on every processor, or it may not serve here
PATTERN_SHA256 = "d4045fb3f072178c58695d73ec2d0b45be54372185359f0d343e5fc87045c26a"


def pattern() -> Image.Image:
    """Pixels by arithmetic alone, with edges and slopes: no decoder, no random numbers."""
    y, x = np.mgrid[:301, :407]
    channels = [(x * y) % 256, (x // 7 % 2) * 255, (3 * x + 5 * y) % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def fast(picture: Image.Image, side_px: int = 96, box: resizing.Box | None = None) -> NDArray[np.int16]:
    return resize_square(picture, side_px, "bicubic", FAST, box).astype(np.int16)


@pytest.mark.parametrize("size_px", SIZES_PX)
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
def test_both_resizers_give_the_same_photograph_within_a_fraction_of_a_level(
    size_px: tuple[int, int], resample: str
) -> None:
    picture = photograph(size_px)
    ours, pillow = (resize_square(picture, 96, resample, name).astype(np.int16) for name in (FAST, PILLOW))
    assert np.abs(ours - pillow).mean() <= 0.25


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_the_model_s_input_is_within_one_level_of_the_stock_processor(size_px: tuple[int, int]) -> None:
    picture = photograph(size_px)
    contract = PreprocessingContract(384, 5, 3, 0)
    stock = BlipImageProcessorPil(size={"height": 384, "width": 384})(picture, return_tensors="np")
    theirs = np.asarray(stock["pixel_values"][0]).transpose(1, 2, 0) * contract.std + np.array(contract.mean)
    assert np.abs(fast(picture, 384) / 255 - theirs).mean() <= 1 / 255


def test_the_pixels_are_the_same_on_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = pattern()
    assert hashlib.sha256(fast(picture).astype(np.uint8).tobytes()).hexdigest() == PATTERN_SHA256
    for instructions in ("none", "sse4_1", "avx2"):
        resizer = cykooz_resizer.Resizer()
        try:
            resizer.cpu_extensions = cykooz_resizer.CpuExtensions[instructions]
        except ValueError:
            continue  # this machine has none of these
        monkeypatch.setattr(resizing._of_thread, "resizer", resizer, raising=False)
        assert hashlib.sha256(fast(picture).astype(np.uint8).tobytes()).hexdigest() == PATTERN_SHA256, instructions


def test_threads_do_not_disturb_each_other() -> None:
    pictures = [photograph((200 + 13 * n, 300 - 11 * n), n) for n in range(16)]
    alone = [fast(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fast, pictures * 4))
    assert all(np.array_equal(one, alone[n % 16]) for n, one in enumerate(together))


def test_a_box_is_what_is_inside_it() -> None:
    picture = photograph((320, 240))
    inside = picture.crop((10, 20, 210, 220))
    assert np.abs(fast(picture, 96, (10, 20, 210, 220)) - fast(inside)).mean() <= 0.5  # all but the edges: no outside
    assert np.array_equal(fast(picture, 96, (0, 0, 320, 240)), fast(picture))


def test_without_its_code_a_contract_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_resizer(PILLOW)
    check_resizer(FAST)
    with pytest.raises(BundleError, match=r"resizer is 'lanczos'; this version knows 'pillow' and 'fast_image_resize'"):
        check_resizer("lanczos")
    monkeypatch.setattr(resizing.importlib.util, "find_spec", lambda _: None)
    assert resizing.default_resizer() == PILLOW
    contract = PreprocessingContract(16, 5, 3, 0, resizer=FAST)
    with pytest.raises(BundleError, match=r"fast_image_resize, which is not installed here.*pip install cykooz"):
        PreprocessingContract.from_json(contract.to_json())
