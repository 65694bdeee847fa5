import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.pictures import ListSource, picture, png
from vlm_assets.data.config import SplitConfig
from vlm_assets.data.raw import import_source
from vlm_assets.data.shards import CaptionTokenizer, sample_texts, shard_paths, write_shards
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.data.splits import write_splits
from vlm_assets.data.tables import SPLIT_ROWS, read_json, read_rows, write_rows
from vlm_assets.errors import SourceError
from vlm_serving.bundle import open_bundle
from vlm_serving.images import decode_picture
from vlm_serving.preprocessing import model_pixels

CAPTIONS = ["a red square", "a blue circle on white", "a woman scientist", "a green dress with long sleeves " * 5, "щ"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("shards")
    for name in ("raw", "splits", "shards"):
        (path / name).mkdir()
    rows = [
        SourceRow(str(seed), png(seed), captions=(f"a {CAPTIONS[seed % 5]}", CAPTIONS[seed % 5])) for seed in range(60)
    ]
    import_source(ListSource(rows), path / "raw", max_bad_fraction=0, log=lambda _: None)
    config = SplitConfig(min_caption_characters=1)
    write_splits(path / "raw", path / "splits", config.settings(), lambda _: None)
    bundle = tiny_bundle(path / "bundle")
    counts = write_shards(path / "splits", path / "raw", bundle, path / "shards", lambda _: None)
    return {"path": path, "bundle": bundle, "counts": counts, "contract": open_bundle(bundle).contract}


def shard_rows(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for file in sorted((made["path"] / "shards").glob("*.parquet")) for row in read_rows(file)]


def test_every_picture_is_in_the_shard_of_its_split(made):
    expected = {row["image_id"]: row["split"] for row in read_rows(made["path"] / "splits" / "rows.parquet")}
    found = {
        row["image_id"]: split
        for split in made["counts"]
        for file in shard_paths(made["path"] / "shards", split)
        for row in read_rows(file)
    }
    assert found == expected
    assert sum(made["counts"].values()) == 60


def test_pictures_are_exactly_what_the_model_will_see(made):
    sources = {seed: decode_picture(png(seed)) for seed in range(60)}
    wanted = {model_pixels(image, made["contract"]).tobytes() for image in sources.values()}
    for row in shard_rows(made):
        stored = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))  # (H, W, 3)
        assert stored.transpose(2, 0, 1).tobytes() in wanted


def test_captions_are_framed_truncated_and_counted(made):
    contract = made["contract"]
    for row in shard_rows(made):
        assert len(row["input_ids"]) == len(row["captions"])
        for ids in row["input_ids"]:
            assert (ids[0], ids[-1]) == (contract.bos_token_id, contract.eos_token_id)
            assert len(ids) <= contract.max_caption_tokens
    tokens = read_json(made["path"] / "shards" / "summary.json")["tokens"]
    assert tokens["captions"] == 120
    assert tokens["truncated_captions"] == 24, "one in five captions is far too long"
    assert tokens["unknown_word_pieces"] > 0
    assert sum(tokens["captions_by_length"].values()) == 120


def test_token_ids_decode_to_the_caption(made):
    tokenizer = CaptionTokenizer(made["bundle"], made["contract"])
    ids = tokenizer.encode("a woman scientist")
    assert tokenizer._tokenizer.decode(ids[1:-1]) == "a woman scientist"
    texts = sample_texts(made["path"] / "shards", made["bundle"], limit=2)
    assert len(texts) == 2 and texts[0]["word pieces"].startswith("[DEC]")


def test_a_caption_that_just_fits_is_not_truncated(made):
    pieces = len(CaptionTokenizer(made["bundle"], made["contract"]).encode("a red square")) - 2
    fits = CaptionTokenizer(made["bundle"], replace(made["contract"], max_caption_tokens=pieces + 2))
    short = CaptionTokenizer(made["bundle"], replace(made["contract"], max_caption_tokens=pieces + 1))
    fits.encode("a red square")
    short.encode("a red square")
    assert (fits.counts.truncated, short.counts.truncated) == (0, 1)


def test_the_contract_goes_with_the_shards(made):
    assert (made["path"] / "shards" / "contract.json").read_bytes() == (made["bundle"] / "contract.json").read_bytes()
    assert read_json(made["path"] / "shards" / "summary.json")["contract_sha256"] == made["contract"].sha256


def test_hugging_face_datasets_opens_them_and_shows_pictures(made, tmp_path: Path):
    from datasets import load_dataset

    files = {"train": str(made["path"] / "shards" / "train-*.parquet")}
    data = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(data) == made["counts"]["train"]
    assert data[0]["image"].size == (32, 32)
    assert data[0]["captions"][0].startswith("a ")
    raw = load_dataset(
        "parquet", data_files=str(made["path"] / "raw" / "pictures-*.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert raw[0]["image"].size == picture(0).size


def test_splits_of_another_snapshot_are_refused(made, tmp_path: Path):
    rows = read_rows(made["path"] / "splits" / "rows.parquet")
    write_rows(tmp_path / "rows.parquet", SPLIT_ROWS, [*rows, {**rows[0], "sha256": "0" * 64}])
    with pytest.raises(
        SourceError, match="holds 60 of the 61 pictures of the splits: these splits were made from another"
    ):
        write_shards(tmp_path, made["path"] / "raw", made["bundle"], tmp_path, lambda _: None)
