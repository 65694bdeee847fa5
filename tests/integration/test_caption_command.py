"""The command killed in the middle: the next run leaves no picture out, writes none twice and no half line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.serving import make_service, over_http
from tests.tiny import picture_bytes, tiny_bundle
from vlm_serving.__main__ import main
from vlm_serving.web import create_web

pytestmark = pytest.mark.integration
PICTURES = 60
PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
BLOCKS = re.findall(r"^<!-- run -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_on_serving_shows_the_client_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = BLOCKS
    service = make_service(tiny_bundle(tmp_path / "bundle"))
    with over_http(create_web(lambda: service)) as url:
        exec(block, {"url": url, "key": "", "picture": picture_bytes(0)})
    said = capsys.readouterr().out
    assert service.slot.version in said and "415 files[0] (picture-0): The bytes are not" in said


def test_a_server_says_the_same_as_the_bundle(tmp_path: Path) -> None:
    bundle, folder = tiny_bundle(tmp_path / "bundle"), tmp_path / "shop"
    folder.mkdir()
    for name, data in (("a.png", picture_bytes(0)), ("b.jpg", b"text"), ("c.png", picture_bytes(1))):
        (folder / name).write_bytes(data)
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    options = ["--num-beams", "3", "--max-new-tokens", "4", "--jobs", "3"]
    assert main(["caption", str(folder), "--bundle", str(bundle), "--out", str(here), *options]) == 1
    service = make_service(bundle)
    with over_http(create_web(lambda: service)) as url:
        assert main(["caption", str(folder), "--url", url, "--out", str(there), *options]) == 1
    ours, theirs = ([json.loads(line) for line in out.read_text().splitlines()] for out in (here, there))
    assert [Path(line["file"]).name for line in theirs] == ["a.png", "b.jpg", "c.png"]
    assert [line.get("caption") for line in theirs] == [line.get("caption") for line in ours]
    assert theirs[1]["error"] == f"files[0] (b.jpg): {ours[1]['error']}"


def test_killed_and_run_again(tmp_path: Path) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out.jsonl"
    folder.mkdir()
    for seed in range(PICTURES):
        (folder / f"{seed:03}.png").write_bytes(picture_bytes(seed))
    service = make_service(tiny_bundle(tmp_path / "bundle"), batch_wait_timeout_s=0.1)
    with over_http(create_web(lambda: service)) as url:
        command = ["caption", str(folder), "--url", url, "--out", str(out), "--jobs", "2"]
        with subprocess.Popen([sys.executable, "-m", "vlm_serving", *command], start_new_session=True) as process:
            deadline_s = time.monotonic() + 60
            while not out.exists() or out.read_bytes().count(b"\n") < 10:
                assert process.poll() is None and time.monotonic() < deadline_s
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        killed = out.read_bytes().count(b"\n")
        assert 10 <= killed < PICTURES
        assert main(command) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(line["file"]).name for line in lines] == [f"{seed:03}.png" for seed in range(PICTURES)]
    assert all(line["caption"] for line in lines)
