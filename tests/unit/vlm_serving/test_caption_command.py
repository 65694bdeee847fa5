"""`python -m vlm_serving caption`: what is captioned, what stands in the file, and how a second run goes on."""

import fcntl
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.tiny import picture_bytes
from vlm_serving.__main__ import main
from vlm_serving.bulk import caption_encoded
from vlm_serving.bundle import open_bundle
from vlm_serving.caption_files import FromServer
from vlm_serving.captioner import Caption, Captioner
from vlm_serving.client import CaptionClient
from vlm_serving.errors import CaptionRequestError, PictureFailedError


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Pictures in a folder: two good ones, a bad one below, and a file that is none."""
    folder = tmp_path / "shop"
    (folder / "below").mkdir(parents=True)
    (folder / "b.png").write_bytes(picture_bytes(0))
    (folder / "a.PNG").write_bytes(picture_bytes(1))
    (folder / "below" / "bad.jpg").write_bytes(b"text")
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(out: Path, *arguments: object) -> int:
    return main(["caption", *map(str, arguments), "--out", str(out)])


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def names(out: Path) -> list[str]:
    return [Path(line["file"]).name for line in read(out)]


def test_folders_patterns_and_files_are_captioned_once_each_in_order(bundle: Path, shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "out.jsonl"
    odd = shop / "notes.txt"  # named, so it is tried
    assert run(out, shop / "b.png", shop, f"{shop}/**/*.jpg", odd, tmp_path / "none.png", "--bundle", bundle) == 1
    assert names(out) == ["b.png", "a.PNG", "bad.jpg", "notes.txt", "none.png"]
    lines = read(out)
    captioner = Captioner(open_bundle(bundle), device="cpu", threads=1)
    expected = caption_encoded(captioner, [picture_bytes(0), picture_bytes(1)])
    assert [line["caption"] for line in lines[:2]] == [one.text for one in expected if isinstance(one, Caption)]
    assert {line["model_version"] for line in lines[:2]} == {captioner.version}
    assert "are not a readable picture" in lines[2]["error"] and lines[4]["error"] == "No such file or directory"


def test_a_second_run_tries_only_what_failed(
    bundle: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert run(out, shop, "--bundle", bundle) == 1
    before = read(out)[:2]
    (shop / "below" / "bad.jpg").write_bytes(picture_bytes(2))
    assert run(out, shop, "--bundle", bundle) == 0
    assert read(out)[:2] == before and names(out) == ["a.PNG", "b.png", "bad.jpg"]
    said = capsys.readouterr().err
    assert "1 failed: see their lines" in said and "going on behind 2 pictures of an earlier run" in said
    content = out.read_bytes()
    assert run(out, shop, "--bundle", bundle) == 0
    assert out.read_bytes() == content


@pytest.mark.parametrize("kept", [0, 1])
def test_a_line_that_was_cut_off_is_written_again(bundle: Path, shop: Path, tmp_path: Path, kept: int) -> None:
    out = tmp_path / "out.jsonl"
    (shop / "below" / "bad.jpg").unlink()
    run(out, shop, "--bundle", bundle)
    whole = out.read_bytes()
    cut = whole.index(b"\n") + 1 if kept else 0
    out.write_bytes(whole[: cut + 20])
    assert run(out, shop, "--bundle", bundle) == 0
    assert out.read_bytes() == whole


def test_captions_of_two_models_do_not_mix(
    bundle: Path, other_bundle: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    run(out, shop, "--bundle", bundle)
    content = out.read_bytes()
    assert run(out, shop, "--bundle", other_bundle) == 1
    one, other = (open_bundle(path).version for path in (bundle, other_bundle))
    assert f"holds captions of model {one}; this run's is {other}. Choose another --out" in capsys.readouterr().err
    assert out.read_bytes() == content


def test_a_file_that_is_something_else_is_left_alone(
    bundle: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "thesis.tex"
    out.write_text("\\documentclass{article}\n")
    assert run(out, shop, "--bundle", bundle) == 1
    assert "thesis.tex, line 1, is no line of captions" in capsys.readouterr().err
    assert out.read_text() == "\\documentclass{article}\n"


def test_two_runs_do_not_write_one_file(
    bundle: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    with out.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run(out, shop, "--bundle", bundle) == 1
    assert f"Another run is writing {out}. Wait for it" in capsys.readouterr().err


def test_a_folder_without_pictures_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(tmp_path / "out", empty, f"{tmp_path}/*.tiff", "--bundle", tmp_path) == 2
    assert f") in {empty}, {tmp_path}/*.tiff. Name others." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_is_none_is_named(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out", shop, "--bundle", tmp_path / "none") == 1
    assert "error: There is no model bundle at" in capsys.readouterr().err


def test_a_refusal_that_holds_for_all_ends_the_run(bundle: Path, shop: Path) -> None:
    files = [shop / "a.PNG", shop / "b.png"]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"models": [{"name": "captioner", "version": "1"}]})
        return httpx.Response(401, json={"detail": "The key is not known."})

    client = CaptionClient("http://captioner", transport=httpx.MockTransport(answer))
    with pytest.raises(CaptionRequestError, match="answered 401: The key is not known"):
        list(FromServer(client, 1, {}).lines(files))


class Allergic(Captioner):
    """Raises whenever a batch holds a picture whose first pixel is that of `poison`."""

    poison = -1

    def caption_pixels(self, pixels: Any, options: Any = None, **asked: Any) -> list[Caption]:
        if self.poison in pixels[:, 0, 0, 0]:
            raise RuntimeError("device-side assert")
        return super().caption_pixels(pixels, options, **asked)


def test_a_picture_on_which_the_model_fails_does_not_cost_the_others_theirs(bundle: Path) -> None:
    captioner = Allergic(open_bundle(bundle), device="cpu", threads=1)
    pictures = [picture_bytes(seed) for seed in range(3)]
    before = caption_encoded(captioner, pictures)
    from vlm_serving.preprocessing import decode_for_model

    captioner.poison = int(decode_for_model(pictures[1], captioner.bundle.contract).pixels[0, 0, 0])
    first, second, third = caption_encoded(captioner, pictures)
    assert isinstance(second, PictureFailedError) and "RuntimeError: device-side assert" in str(second)
    for one, other in ((before[0], first), (before[2], third)):
        assert isinstance(one, Caption) and isinstance(other, Caption) and one.text == other.text
