"""Bundles: sealed, checked, and plain transformers for everybody else."""

import hashlib
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from transformers import AutoTokenizer, BlipForConditionalGeneration

from tests.tiny import picture_bytes, read_golden, tiny_bundle
from vlm_serving.bundle import open_bundle, seal_bundle, sha256_of
from vlm_serving.captioner import Captioner, tidy
from vlm_serving.errors import BundleError
from vlm_serving.generation import GenerationOptions
from vlm_serving.golden import write_golden
from vlm_serving.images import decode_picture
from vlm_serving.preprocessing import decode_for_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def test_the_version_is_the_content(tmp_path: Path, original: Path) -> None:
    again = tiny_bundle(tmp_path / "again")
    other = tiny_bundle(tmp_path / "other", seed=1)
    versions = [open_bundle(path).version for path in (original, again, other)]
    assert versions[0] == versions[1] != versions[2]


def test_plain_transformers_loads_what_we_save(bundle: Path) -> None:
    assert BlipForConditionalGeneration.from_pretrained(bundle).num_parameters() < 70_000
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    assert tokenizer.decode(tokenizer.encode("a red square", add_special_tokens=False)) == "a red square"


def test_an_altered_weight_file_is_refused(bundle: Path) -> None:
    weights = bundle / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BundleError, match=r"model\.safetensors in the bundle .* was altered"):
        open_bundle(bundle)
    assert open_bundle(bundle, verify=False).version


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"lacks tokenizer\.json"):
        open_bundle(bundle)
    with pytest.raises(BundleError, match=r"Cannot seal .*: missing tokenizer\.json"):
        seal_bundle(bundle, {})


def test_what_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no model bundle at .*nowhere"):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"is not a model bundle: bundle\.json is missing"):
        open_bundle(tmp_path)
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match=r"bundle\.json is not readable JSON"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "special_tokens_map.json", "golden/9.png", ".hidden"])
def test_a_file_that_the_seal_does_not_list_is_refused(name: str, bundle: Path) -> None:
    """transformers would load an adapter, other special tokens or another chat template if it lay there."""
    (bundle / name).write_text("{}")
    for verify in (True, False):
        with pytest.raises(BundleError, match=rf"holds files that it was not sealed with: {name}\. .*remove them"):
            open_bundle(bundle, verify)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "contract.json", "generation_config.json"])
def test_small_files_are_compared_at_every_load(name: str, bundle: Path) -> None:
    (bundle / name).write_text((bundle / name).read_text() + "\n")
    with pytest.raises(BundleError, match=rf"{name} in the bundle .* was altered"):
        open_bundle(bundle, verify=False)


def test_an_edited_seal_is_refused(bundle: Path) -> None:
    seal = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**seal, "lineage": {"base": "something better"}}))
    with pytest.raises(BundleError, match=r"was altered: its lineage is not the one that was sealed"):
        open_bundle(bundle, verify=False)
    (bundle / "bundle.json").write_text(json.dumps({**seal, "version": "0" * 16}))
    with pytest.raises(BundleError, match=r"was altered: its files do not give version 0{16}"):
        open_bundle(bundle, verify=False)


def test_a_contract_that_was_edited_is_refused_whatever_the_seal_says(bundle: Path) -> None:
    contract = json.loads((bundle / "contract.json").read_text())
    (bundle / "contract.json").write_text(json.dumps({**contract, "image_size_px": 64}))
    with pytest.raises(BundleError, match="preprocessing contract was altered"):
        seal_bundle(bundle, {})


def test_a_tokenizer_that_is_not_the_contracts_is_refused_whatever_the_seal_says(bundle: Path) -> None:
    tokenizer = bundle / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"red"', '"rad"'))
    with pytest.raises(BundleError, match=r"tokenizer\.json in .* is not the contract's: its sha256 is"):
        seal_bundle(bundle, {})
    seal = json.loads((bundle / "bundle.json").read_text())
    files = {**seal["files"], "tokenizer.json": sha256_of(tokenizer)}
    (bundle / "bundle.json").write_text(json.dumps({**seal, "files": files, "version": version_of(files)}))
    with pytest.raises(BundleError, match=r"tokenizer\.json in .* is not the contract's"):
        open_bundle(bundle, verify=False)


def version_of(files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def test_golden_vectors_hold_on_the_machine_that_made_them(bundle: Path) -> None:
    assert Captioner(open_bundle(bundle), threads=1).check_golden() == 3  # two pictures, one as a large JPEG too


def test_pictures_encoded_one_by_one_are_what_they_are_together(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_bundle(bundle)
    side_px = opened.contract.image_size_px
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, side_px, side_px), dtype=np.uint8)
    together = Captioner(opened, threads=1, precision="fp32").caption_pixels(pixels)
    monkeypatch.setattr("vlm_serving.captioner.WIDEST_BYTES", 1)
    apart = Captioner(opened, threads=1, precision="fp32").caption_pixels(pixels)
    assert [one.token_ids for one in apart] == [one.token_ids for one in together]
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-5)


def test_reduced_decoding_of_a_jpeg_that_lies_is_among_the_golden_pictures(bundle: Path) -> None:
    opened = open_bundle(bundle)
    (name,) = [entry["picture"] for entry in read_golden(bundle) if str(entry["picture"]).endswith(".jpg")]
    file = Image.open(bundle / str(name))
    seen = decode_for_model((bundle / str(name)).read_bytes(), opened.contract)
    assert file.format == "JPEG"
    assert seen.shown.size == (math.ceil(file.width / 8), math.ceil(file.height / 8))
    assert (seen.width_px, seen.height_px) == (file.height, file.width)
    upright = decode_for_model((bundle / "golden" / "0.png").read_bytes(), opened.contract)
    assert np.abs(seen.pixels.astype(int) - upright.pixels).mean() < 12  # the same picture, the same way up
    other = replace(opened, contract=replace(opened.contract, scaled_jpeg=False))
    with pytest.raises(BundleError, match=r"0-large\.jpg .*: preprocessing differs by \d+ grey levels"):
        Captioner(other, threads=1).check_golden()


def test_golden_pictures_tell_nothing_but_what_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "taken at home"
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, "JPEG", exif=exif)
    bundle = tiny_bundle(tmp_path / "bundle")
    write_golden(Captioner(open_bundle(bundle), threads=1), [buffer.getvalue()], tmp_path)
    assert all(b"taken at home" not in file.read_bytes() for file in (tmp_path / "golden").iterdir())


def test_other_weights_fail_the_golden_check(bundle: Path, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other", seed=5)
    shutil.copy(other / "model.safetensors", bundle / "model.safetensors")
    with pytest.raises(BundleError, match=r"Golden picture golden/0\.png .*(cosine|caption)"):
        Captioner(open_bundle(bundle, verify=False), threads=1).check_golden()


def test_other_preprocessing_fails_the_golden_check(bundle: Path) -> None:
    opened = open_bundle(bundle)
    (bundle / "golden" / "0.png").write_bytes(picture_bytes(99))
    with pytest.raises(BundleError, match=r"preprocessing differs by \d+ grey levels \(limit 1\)"):
        Captioner(opened, threads=1).check_golden()


def test_a_caption_does_not_depend_on_its_neighbours_in_the_batch(bundle: Path) -> None:
    captioner = Captioner(open_bundle(bundle), threads=1)
    pictures = [decode_picture(picture_bytes(number, (50 + number, 40))) for number in range(5)]
    together = captioner.caption(pictures)
    alone = [captioner.caption([picture])[0] for picture in pictures]
    assert [caption.text for caption in together] == [caption.text for caption in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.confidence == pytest.approx(other.confidence, rel=1e-3)
        assert one.token_count == other.token_count
        assert one.embedding == pytest.approx(other.embedding, abs=1e-4)
        assert 0 < one.confidence <= 1


def test_each_token_has_its_log_probability(bundle: Path) -> None:
    caption = Captioner(open_bundle(bundle), threads=1).caption([decode_picture(picture_bytes(3))])[0]
    assert len(caption.token_logprobs) == len(caption.token_ids) == caption.token_count
    assert caption.confidence == pytest.approx(np.exp(np.mean(caption.token_logprobs)))


def test_beams_give_a_caption_at_least_as_likely(bundle: Path) -> None:
    captioner = Captioner(open_bundle(bundle), threads=1)
    picture = decode_picture(picture_bytes(3))
    beams = captioner.caption([picture], GenerationOptions(max_new_tokens=6, num_beams=4))[0]
    assert beams.text
    assert 0 < beams.confidence <= 1


def test_no_pictures_no_captions(bundle: Path) -> None:
    assert Captioner(open_bundle(bundle), threads=1).caption([]) == []


@pytest.mark.parametrize(
    ("decoded", "written"),
    [
        ("a kids ' t - shirt", "a kids ' t-shirt"),
        ("a woman with medium - dark skin tone", "a woman with medium-dark skin tone"),
        (" a man ' s hat ", "a man's hat"),
        ("a red-haired man", "a red-haired man"),
        ("five - a - side", "five-a-side"),
    ],
)
def test_words_that_the_tokenizer_took_apart_are_whole_again(decoded: str, written: str) -> None:
    assert tidy(decoded) == written
