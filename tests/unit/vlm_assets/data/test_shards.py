"""Shards: what is in them, that nothing but the inputs decides their bytes, and what happens when it goes wrong."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.pictures import encoded, picture, png
from tests.unit.vlm_assets.data.shard_inputs import write_inputs
from vlm_assets.data import shard_workers
from vlm_assets.data.captions import CaptionTokenizer, read_tokenizer
from vlm_assets.data.config import ShardsConfig
from vlm_assets.data.encoding import decode_pixels, encode_pixels
from vlm_assets.data.shard_files import shard_info
from vlm_assets.data.shards import ShardSettings, sample_texts, shard_paths, write_shards
from vlm_assets.data.tables import SPLIT_ROWS, read_json, read_rows, write_rows
from vlm_assets.errors import SourceError, StoreError
from vlm_serving.bundle import open_bundle
from vlm_serving.preprocessing import decode_for_model

CAPTIONS = ["a red square", "a blue circle on white", "a woman scientist", "a green dress with long sleeves " * 5, "щ"]
PICTURES = 60
SMALL = ShardSettings(shard_bytes=12_000, workers=1)  # several files a split


def nothing(_: str) -> None:
    """A log that nobody reads."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("inputs")
    pictures = [png(seed) if seed % 2 else encoded(picture(seed, (300, 200)), "JPEG") for seed in range(PICTURES)]
    captions = [(f"a {CAPTIONS[seed % 5]}", CAPTIONS[seed % 5]) for seed in range(PICTURES)]
    raw, splits = write_inputs(path, pictures, captions)
    return {"raw": raw, "splits": splits, "bundle": tiny_bundle(path / "bundle"), "pictures": pictures}


def make(inputs: dict[str, Any], path: Path, settings: ShardSettings = SMALL, **options: Any) -> Path:
    path.mkdir(parents=True)
    write_shards(inputs["splits"], inputs["raw"], inputs["bundle"], path, nothing, settings, **options)
    return path


@pytest.fixture(scope="module")
def made(inputs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = make(inputs, tmp_path_factory.mktemp("made") / "shards")
    return {**inputs, "path": path, "contract": open_bundle(inputs["bundle"]).contract}


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.parquet"))}


def shard_rows(path: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(path.glob("*.parquet")) for row in read_rows(file)]


def vocabulary(made: dict[str, Any]) -> str:
    return read_tokenizer(made["bundle"], made["contract"])


def test_every_picture_is_in_the_shards_of_its_split_in_the_snapshot_s_order(made):
    split_of = {row["image_id"]: row["split"] for row in read_rows(made["splits"] / "rows.parquet")}
    packs = sorted(made["raw"].glob("pictures-*.parquet"))
    order = [row["sha256"][:16] for pack in packs for row in read_rows(pack, ["sha256"])]
    for split in sorted(set(split_of.values())):
        found = [row["image_id"] for file in shard_paths(made["path"], split) for row in read_rows(file)]
        assert found == [image_id for image_id in order if split_of.get(image_id) == split]
    assert len(packs) > 2 and len(shard_paths(made["path"], "train")) > 2, "the interesting case"


def test_pictures_are_exactly_what_the_model_will_see(made):
    wanted = {decode_for_model(data, made["contract"]).pixels.tobytes() for data in made["pictures"]}
    for row in shard_rows(made["path"]):
        stored = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))  # (H, W, 3)
        assert stored.transpose(2, 0, 1).tobytes() in wanted


def test_captions_are_framed_truncated_and_counted(made):
    contract, rows = made["contract"], shard_rows(made["path"])
    for row in rows:
        assert len(row["input_ids"]) == len(row["captions"])
        for ids in row["input_ids"]:
            assert (ids[0], ids[-1]) == (contract.bos_token_id, contract.eos_token_id)
            assert len(ids) <= contract.max_caption_tokens
    tokens = read_json(made["path"] / "summary.json")["tokens"]
    assert tokens["captions"] == 2 * len(rows)
    assert tokens["truncated_captions"] == sum(CAPTIONS[3] in row["captions"] for row in rows) * 2
    assert tokens["unknown_word_pieces"] > 0
    assert sum(tokens["captions_by_length"].values()) == 2 * len(rows)


def test_token_ids_are_those_of_transformers_and_decode_to_the_caption(made):
    from transformers import AutoTokenizer

    tokenizer = CaptionTokenizer(vocabulary(made), made["contract"])
    theirs = AutoTokenizer.from_pretrained(made["bundle"])
    for caption in [*CAPTIONS, "A WOMAN's  dress-coat!", "naïve café", "[SEP] and [PAD]", ""]:
        expected = theirs(caption, add_special_tokens=False)["input_ids"][: made["contract"].max_caption_tokens - 2]
        assert tokenizer.encode(caption)[1:-1] == expected
    assert theirs.decode(tokenizer.encode("a woman scientist")[1:-1]) == "a woman scientist"
    texts = sample_texts(made["path"], made["bundle"], limit=2)
    assert len(texts) == 2 and texts[0]["word pieces"].startswith("[DEC]")


def test_a_caption_that_just_fits_is_not_truncated(made):
    text = vocabulary(made)
    pieces = len(CaptionTokenizer(text, made["contract"]).encode("a red square")) - 2
    fits = CaptionTokenizer(text, replace(made["contract"], max_caption_tokens=pieces + 2))
    short = CaptionTokenizer(text, replace(made["contract"], max_caption_tokens=pieces + 1))
    fits.encode("a red square")
    short.encode("a red square")
    assert (fits.counts.truncated, short.counts.truncated) == (0, 1)


def test_each_file_says_which_contract_made_it(made):
    assert (made["path"] / "contract.json").read_bytes() == (made["bundle"] / "contract.json").read_bytes()
    assert read_json(made["path"] / "summary.json")["contract_sha256"] == made["contract"].sha256
    for file in made["path"].glob("*.parquet"):
        info = shard_info(file)
        assert (info["contract_sha256"], info["encoding"]) == (made["contract"].sha256, "png")
        assert f"{info['split']}-{info['number']:05d}.parquet" == file.name
    with pytest.raises(StoreError, match=r"rows\.parquet is not a shard of this project"):
        shard_info(made["splits"] / "rows.parquet")


def test_files_have_about_the_size_that_was_asked_for(inputs, tmp_path: Path):
    made = make(inputs, tmp_path / "shards", replace(SMALL, shard_bytes=20_000))
    sizes = [sum(len(row["image"]["bytes"]) for row in read_rows(file)) for file in shard_paths(made, "train")]
    assert len(sizes) > 2
    assert all(10_000 < size < 30_000 for size in sizes)


@pytest.mark.parametrize("encoding", ["png", "jpeg", "webp", "raw"])
def test_hugging_face_pandas_and_duckdb_open_every_encoding(inputs, encoding: Any, tmp_path: Path):
    import duckdb
    import pandas as pd
    from datasets import load_dataset

    path = make(inputs, tmp_path / "shards", replace(SMALL, encoding=encoding, quality=95))
    pattern = str(path / "train-*.parquet")
    expected = [row for file in shard_paths(path, "train") for row in read_rows(file)]
    data = load_dataset("parquet", data_files={"train": pattern}, split="train", cache_dir=str(tmp_path / "hf"))
    assert len(data) == len(expected)
    assert (data[0]["image"].size, data[0]["image"].mode) == ((32, 32), "RGB")
    assert data[0]["captions"] == expected[0]["captions"] and data[0]["input_ids"] == expected[0]["input_ids"]
    frame = pd.read_parquet(shard_paths(path, "train")[0])
    assert [list(ids) for ids in frame["input_ids"][0]] == expected[0]["input_ids"]
    found = duckdb.sql(f"select image_id, octet_length(image.bytes), len(input_ids) from '{pattern}' order by 1")
    assert found.fetchall() == sorted(
        (row["image_id"], len(row["image"]["bytes"]), len(row["input_ids"])) for row in expected
    )


@pytest.mark.parametrize("workers", [2, 3])
def test_the_bytes_do_not_depend_on_the_number_of_workers(made, tmp_path: Path, monkeypatch, workers: int):
    monkeypatch.setattr(shard_workers, "FEW_PICTURES", 0)
    path = make(made, tmp_path / "shards", replace(SMALL, workers=workers))
    assert files_of(path) == files_of(made["path"])
    assert (path / "summary.json").read_bytes() == (made["path"] / "summary.json").read_bytes()


def test_one_large_file_is_shared_by_the_workers_and_has_the_same_bytes(made, tmp_path: Path):
    lines: list[str] = []
    whole = replace(SMALL, shard_bytes=10_000_000)
    alone = make(made, tmp_path / "alone", whole)
    together = tmp_path / "together"
    together.mkdir()
    write_shards(made["splits"], made["raw"], made["bundle"], together, lines.append, replace(whole, workers=2))
    assert lines[0] == "shards: 4 files by 1 process of 2 threads"
    assert files_of(together) == files_of(alone) and len(shard_paths(together, "train")) == 1


@pytest.mark.parametrize(
    ("workers", "pictures", "files", "crew"),
    [
        (1, 10_000, 1, "1 process of 1 thread"),
        (2, 500, 1, "1 process of 2 threads"),
        (2, 2_822, 3, "2 processes of 2 threads"),
        (16, 10_000, 12, "12 processes of 4 threads"),
        (16, 1_000_000, 1_100, "16 processes of 1 thread"),
    ],
)
def test_processes_for_many_files_and_threads_for_few(workers: int, pictures: int, files: int, crew: str):
    assert str(shard_workers.crew_for(workers, pictures, files)) == crew


def test_finished_shards_are_kept_and_damaged_ones_made_again(made, tmp_path: Path):
    scratch = make(made, tmp_path / "scratch")
    kept, cut, gone = sorted(scratch.glob("*.parquet"))[:3]
    cut.write_bytes(cut.read_bytes()[:-100])
    gone.unlink()
    before = kept.stat().st_mtime_ns
    path = make(made, tmp_path / "shards", scratch=scratch)
    assert files_of(path) == files_of(made["path"])
    assert kept.stat().st_mtime_ns == before
    assert [file.name for file in path.iterdir() if file.name.startswith(".")] == []


KILLED = """
import sys
from pathlib import Path
from vlm_assets.data import shard_workers
from vlm_assets.data.shards import ShardSettings, write_shards
shard_workers.FEW_PICTURES = 0
if __name__ == "__main__":
    splits, raw, bundle, out, scratch = map(Path, sys.argv[1:6])
    settings = ShardSettings(shard_bytes=12_000, workers=2)
    write_shards(splits, raw, bundle, out, print, settings, scratch)
"""


def test_killed_at_any_moment_and_run_again_gives_the_same_bytes_and_leaves_no_process(made, tmp_path: Path):
    script, scratch = tmp_path / "run.py", tmp_path / "scratch"
    script.write_text(KILLED)
    scratch.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    for attempt, wait_for in enumerate((1, 4, 8)):
        out = tmp_path / f"out{attempt}"
        out.mkdir()
        command = [sys.executable, str(script), *map(str, (made["splits"], made["raw"], made["bundle"], out, scratch))]
        run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)
        while run.poll() is None and len(list(scratch.glob("*.parquet"))) < wait_for:
            time.sleep(0.005)
        run.kill()
        run.communicate()
        assert not list(out.glob("summary.json")) or run.returncode == 0
        for file in scratch.glob("*.parquet"):
            pq.read_table(file)  # whatever is visible is whole
    deadline_s = time.monotonic() + 10
    while _alive(run.pid) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not _alive(run.pid), "workers outlived their parent"
    path = make(made, tmp_path / "shards", scratch=scratch)
    assert files_of(path) == files_of(made["path"])


def _alive(process_group: int) -> bool:
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return False
    states = subprocess.run(
        ["ps", "-o", "stat=", "-g", str(process_group)], capture_output=True, text=True, check=False
    )
    return any(not state.startswith("Z") for state in states.stdout.split())


def test_progress_counts_all_workers(made, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(shard_workers, "FEW_PICTURES", 0)
    lines: list[str] = []
    (tmp_path / "shards").mkdir()
    write_shards(
        made["splits"], made["raw"], made["bundle"], tmp_path / "shards", lines.append, replace(SMALL, workers=2)
    )
    count = len(shard_rows(made["path"]))
    assert f"100% {count}/{count} pictures" in lines[-1]
    assert "by 2 processes of 2 threads" in lines[0]


def test_splits_of_another_snapshot_are_refused(made, tmp_path: Path):
    rows = read_rows(made["splits"] / "rows.parquet")
    write_rows(tmp_path / "rows.parquet", SPLIT_ROWS, [*rows, {**rows[0], "sha256": "0" * 64}])
    with pytest.raises(
        SourceError, match="holds 54 of the 55 pictures of the splits: these splits were made from another"
    ):
        write_shards(tmp_path, made["raw"], made["bundle"], tmp_path, nothing)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_picture_that_cannot_be_decoded_is_one_clear_error(inputs, tmp_path: Path, monkeypatch, workers: int):
    monkeypatch.setattr(shard_workers, "FEW_PICTURES", 0)
    pictures = [png(seed) for seed in range(40)]
    raw, splits = write_inputs(tmp_path, [*pictures[:30], pictures[30][:200], *pictures[31:]], [("a dress",)] * 40)
    out = tmp_path / "shards"
    with pytest.raises(SourceError, match=r"Picture [0-9a-f]{16} of the snapshot cannot be decoded: The PNG picture"):
        make({**inputs, "raw": raw, "splits": splits}, out, replace(SMALL, workers=workers))
    assert not (out / "summary.json").exists()
    assert not list(out.glob(".*")), "no half-written file"


def test_a_shard_that_cannot_be_written_is_one_clear_error(made, tmp_path: Path):
    (tmp_path / "shards" / "train-00000.parquet").mkdir(parents=True)
    with pytest.raises(
        StoreError, match=r"Cannot write the shard .*train-00000\.parquet: .*Give write permission, or rem"
    ):
        write_shards(made["splits"], made["raw"], made["bundle"], tmp_path / "shards", nothing, SMALL)
    assert not list((tmp_path / "shards").glob(".*"))


def test_a_worker_killed_from_outside_is_one_clear_error(made, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(shard_workers, "FEW_PICTURES", 0)
    real = shard_workers.wait

    def kill_one_then_wait(*arguments: Any) -> Any:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(int(workers[0]), signal.SIGKILL)
        return real(*arguments)

    monkeypatch.setattr(shard_workers, "wait", kill_one_then_wait)
    with pytest.raises(SourceError, match="A worker that made shards was killed, most likely for want of memory; 2"):
        make(made, tmp_path / "shards", replace(SMALL, workers=2))


def test_a_vocabulary_of_another_model_is_refused(made, tmp_path: Path):
    bundle = tiny_bundle(tmp_path / "bundle")
    contract = made["contract"]
    with pytest.raises(SourceError, match=r"not the one of the preprocessing contract: its sha256 begins with"):
        read_tokenizer(bundle, replace(contract, tokenizer_sha256="0" * 64))
    with pytest.raises(SourceError, match=r"has \{'bos_token_id': 30522\}, but the vocabulary .* ends at"):
        read_tokenizer(bundle, replace(contract, bos_token_id=30522))
    (bundle / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError, match=r"tokenizer.json is not a tokenizer: "):
        read_tokenizer(bundle, replace(contract, tokenizer_sha256=""))
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"has no tokenizer.json; only its fast tokenizer"):
        read_tokenizer(bundle, contract)


def test_workers_and_nodes_change_no_version_and_the_rest_does(monkeypatch):
    plain = ShardsConfig()
    assert ShardsConfig(workers=7, nodes=3).recipe() == plain.recipe()
    assert ShardsConfig(encoding="raw").recipe() != plain.recipe() != ShardsConfig(shard_mb=64).recipe()
    monkeypatch.setenv("VLM_RAY_ADDRESS", "ray-head:6379")
    assert plain.settings() == ShardSettings(ray_address="ray-head:6379")


@pytest.mark.parametrize(("encoding", "levels"), [("png", 0), ("raw", 0), ("webp", 0), ("jpeg", 3)])
def test_training_decodes_every_encoding(encoding: Any, levels: int):
    from vlm_assets.training.batches import Example, PairDataset

    pixels = np.asarray(picture(3, (48, 48)))
    data = encode_pixels(pixels, encoding, quality=100 if encoding == "webp" else 95)
    found = PairDataset([Example(data, (5, 3))])[0]["pixels"]
    assert found.shape == (3, 48, 48)
    assert np.abs(found.astype(int) - pixels.transpose(2, 0, 1)).mean() <= levels
    assert np.abs(decode_pixels(data).astype(int) - pixels).mean() <= levels


def test_golden_pictures_of_a_bundle_are_seen_as_before_reduced_decoding(made):
    entries = json.loads((made["bundle"] / "golden.json").read_text())
    assert entries
    for entry in entries:
        seen = decode_for_model((made["bundle"] / entry["picture"]).read_bytes(), made["contract"])
        assert np.array_equal(np.asarray(seen.square), np.asarray(Image.open(made["bundle"] / entry["pixels"])))


def test_every_column_is_explained() -> None:
    from vlm_assets.data.columns import MEANINGS
    from vlm_assets.data.tables import RAW_ROWS, SHARD, SPLIT_ROWS

    assert set(MEANINGS) == {*RAW_ROWS.names, *SPLIT_ROWS.names, *SHARD.names}
