"""What evaluation measures is what a request without options gets: one bundle, one way to generate."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.serving import make_client, make_service
from tests.tiny import picture_bytes, tiny_bundle
from tests.unit.vlm_assets.evaluation.shards import write_split
from tests.unit.vlm_assets.evaluation.test_evaluate import CONFIG, write_model, write_shards
from vlm_assets.evaluation.predict import caption_split
from vlm_assets.evaluation.systems import Models, caption_models
from vlm_serving.bundle import open_bundle, seal_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.errors import BundleError
from vlm_serving.generation import GenerationOptions

BEAMS = GenerationOptions(max_new_tokens=7, num_beams=4)
PICTURES = [picture_bytes(number, (32, 32)) for number in range(6)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle", generation=BEAMS)


def served(bundle: Path, query: str = "") -> list[str]:
    """What a running application answers, one request a picture."""
    client = make_client(make_service(bundle))
    answers = [client.post(f"/v1/captions{query}", files={"files": data}).json() for data in PICTURES]
    return [answer["captions"][0]["text"] for answer in answers]


def measured(bundle: Path, shards: Path) -> list[str]:
    """What evaluation writes down."""
    rows = [
        {
            "image_id": f"{number}",
            "image": {"bytes": data, "path": f"{number}.png"},
            "captions": ["a"],
            "input_ids": [[1]],
            "slots": "[{}]",
        }
        for number, data in enumerate(PICTURES)
    ]
    files = write_split(shards, "test", rows)
    captioner = Captioner(open_bundle(bundle), device="cpu", threads=1)
    return caption_split(captioner, files, 2, lambda _: None)["caption"].to_pylist()


def test_a_request_without_options_gets_the_captions_that_were_measured(bundle: Path, tmp_path: Path) -> None:
    found = served(bundle)
    assert found == measured(bundle, tmp_path)
    assert found == served(bundle, "?num_beams=4&max_new_tokens=7")
    assert found != served(bundle, "?num_beams=1")  # the search matters on these pictures; a request may choose
    assert all(len(text.split()) <= 2 for text in served(bundle, "?max_new_tokens=2"))


def test_a_request_may_ask_for_what_the_model_does_anyway_and_no_more(tmp_path: Path) -> None:
    own = GenerationOptions(max_new_tokens=9, num_beams=8)
    client = make_client(make_service(tiny_bundle(tmp_path / "bundle", generation=own), max_new_tokens=6))
    post = {"content": PICTURES[0], "headers": {"content-type": "image/png"}}
    assert client.post("/v1/captions?num_beams=8&max_new_tokens=9", **post).status_code == 200
    refused = client.post("/v1/captions?num_beams=9", **post)
    assert (refused.status_code, refused.json()["detail"]) == (
        422, "num_beams is 9; it must be 1 to 8. Leave it out for the model's own.",
    )  # fmt: skip


def test_rivals_are_decoded_as_they_serve_and_the_base_as_the_candidate(tmp_path: Path) -> None:
    models = Models(
        write_model(tmp_path / "candidate", 1, generation=BEAMS),
        write_model(tmp_path / "base", 2),
        write_model(tmp_path / "champion", 3, generation=replace(BEAMS, num_beams=2)),
    )
    config = CONFIG.model_copy(update={"splits": ["test"]})
    systems = {one.key: one for one in caption_models(write_shards(tmp_path / "shards"), models, config, print)}
    assert {key: one.generation.num_beams for key, one in systems.items()} == {"candidate": 4, "champion": 2, "base": 4}
    assert systems["champion"].about == "released before, 2 beams, at most 7 tokens"


def test_golden_captions_are_those_of_the_bundles_own_search(bundle: Path) -> None:
    captioner = Captioner(open_bundle(bundle), device="cpu", threads=1)
    assert captioner.check_golden()
    entries = json.loads((bundle / "golden.json").read_text())
    answer = make_client(make_service(bundle)).post(
        "/v1/captions", files={"files": (bundle / entries[0]["picture"]).read_bytes()}
    )
    assert answer.json()["captions"][0]["text"] == entries[0]["caption"]


def test_settings_of_generation_that_are_unknown_here_are_refused(tmp_path: Path) -> None:
    path = tiny_bundle(tmp_path / "bundle")
    (path / "generation.json").write_text(json.dumps({"prompt": "", "num_beams": 2, "temperature": 0.5}))
    with pytest.raises(BundleError, match=r"sets temperature for generation, which this version does not know"):
        seal_bundle(path, {})


def test_a_bundle_from_before_generation_settings_captions_as_it_did(tmp_path: Path) -> None:
    path = tiny_bundle(tmp_path / "bundle")
    (path / "generation.json").write_text(json.dumps({"prompt": "a"}))
    (path / "bundle.json").unlink()
    assert seal_bundle(path, {}).generation == GenerationOptions(max_new_tokens=30, num_beams=1)
