"""The client against the real application in the same process, and the command line that uses it."""

import json
from pathlib import Path

import httpx
import pytest

from tests.serving import InProcess, make_service
from tests.tiny import picture_bytes
from vlm_serving.__main__ import main
from vlm_serving.client import CaptionClient
from vlm_serving.errors import CaptionRequestError


def client_of(bundle: Path | None, **settings: object) -> CaptionClient:
    return CaptionClient("http://captioner/", transport=InProcess(make_service(bundle, **settings)))


def test_files_and_bytes_are_captioned_in_order_over_several_requests(bundle: Path, tmp_path: Path) -> None:
    client = client_of(bundle)
    file = tmp_path / "a.png"
    file.write_bytes(picture_bytes(0))
    results = client.caption([file, *(picture_bytes(seed) for seed in range(1, 40))])
    assert len(results) == 40
    assert len({result.request_id for result in results}) == 2
    assert len({result.caption_id for result in results}) == 40
    assert results[0].text == client.caption([picture_bytes(0)])[0].text
    assert results[0].model_version == client.model_version()
    assert client.ready()


def test_no_pictures_are_no_request(bundle: Path) -> None:
    assert client_of(bundle).caption([]) == []


def test_options_reach_the_model(bundle: Path) -> None:
    assert client_of(bundle).caption([picture_bytes(0)], max_new_tokens=2, num_beams=3)[0].token_count <= 2


def test_a_refusal_carries_the_servers_reason(bundle: Path) -> None:
    with pytest.raises(
        CaptionRequestError, match=r"answered 415: files\[0\] \(picture-0\): The bytes are not"
    ) as caught:
        client_of(bundle).caption([b"no"])
    assert (caught.value.status, caught.value.problem["picture_index"]) == (415, 0)


def test_not_ready(bundle: Path) -> None:
    client = client_of(None)
    assert not client.ready()
    with pytest.raises(CaptionRequestError, match="No model serves yet"):
        client.model_version()


def test_nobody_there() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    with CaptionClient("http://captioner", transport=httpx.MockTransport(refuse)) as client:
        assert not client.ready()
        with pytest.raises(
            CaptionRequestError, match=r"http://captioner cannot be reached .*refused.*Is the server up"
        ):
            client.caption([b"x"])


def test_caption_command_writes_a_line_per_file_and_fails_for_the_bad_one(bundle: Path, tmp_path: Path) -> None:
    good, bad, missing, out = (tmp_path / name for name in ("good.png", "bad.jpg", "missing.png", "out.jsonl"))
    good.write_bytes(picture_bytes(0))
    bad.write_bytes(b"text")
    arguments = ["caption", *map(str, (bad, good, missing)), "--bundle", str(bundle), "--out", str(out)]
    assert main(arguments) == 1
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["bad.jpg", "good.png", "missing.png"]
    assert ["error" in line for line in lines] == [True, False, True]
    assert lines[1]["caption"] == client_of(bundle).caption([good])[0].text


def test_caption_command_names_a_bundle_that_is_not_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "x.png", "--bundle", str(tmp_path / "none")]) == 1
    assert "error: There is no model bundle at" in capsys.readouterr().err
