"""Bulk captions without Ray: what blocks are, what a row says, how a stopped run goes on, what is refused."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.tiny import picture_bytes, tiny_bundle
from vlm_assets.bulk.artifact import build_bulk_captions
from vlm_assets.bulk.blocks import Block, Plan, plan_blocks
from vlm_assets.bulk.captioning import BulkWork, caption_block, load_model
from vlm_assets.bulk.config import BulkConfig
from vlm_assets.bulk.jobs import chosen_model
from vlm_assets.bulk.on_ray import placement
from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.errors import ConfigError, SourceError, UnusableSourceError
from vlm_assets.run_config import check_run_config
from vlm_assets.store import Built, Store
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.images import decode_picture


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, ArtifactRef]:
    """A store with a model in it."""
    store = Store(tmp_path_factory.mktemp("bulk") / "store")
    return store, store.build(Recipe("finetuned_model", "1"), lambda draft: tiny_bundle(draft.path / "bundle")).ref


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Five good pictures, one damaged, one file that is no picture."""
    folder = tmp_path / "shop"
    (folder / "below").mkdir(parents=True)
    for seed in range(5):
        (folder / "below" / f"{seed}.png").write_bytes(picture_bytes(seed))
    (folder / "bad.jpg").write_bytes(b"text")
    (folder / "notes.txt").write_text("not asked for")
    return folder


class Here:
    """Runs blocks in this process, as a worker does; stops like a killed run behind the first `until`."""

    def __init__(self, until: int | None = None) -> None:
        self.until = until
        self.numbers: list[int] = []

    def __call__(self, work: BulkWork, blocks: Sequence[Block]) -> Iterator[tuple[int, pa.Table]]:
        captioner = load_model(work)
        for block in blocks:
            if self.until is not None and len(self.numbers) >= self.until:
                raise KeyboardInterrupt
            self.numbers.append(block.number)
            yield block.number, caption_block(captioner, work, block)


def plan_of(config: BulkConfig) -> Plan:
    return plan_blocks(config.pictures, config.picture_column, config.id_column, config.block_pictures, print)


def build(place: tuple[Store, ArtifactRef], config: BulkConfig, run: Here | None = None, log: Any = print) -> Built:
    store, model = place
    plan = plan_of(config)
    return build_bulk_captions(store, plan, BulkWork(plan.root, store.uri, model, config), log, run or Here())


def rows_of(built: Built) -> list[dict[str, Any]]:
    return pq.read_table(sorted(built.path.glob("captions-*.parquet"))).to_pylist()


def test_each_picture_has_its_caption_or_its_reason(place: tuple[Store, ArtifactRef], shop: Path) -> None:
    built = build(place, BulkConfig(pictures=str(shop), block_pictures=2, max_bad_fraction=0.2, embeddings=True))
    store, model = place
    captioner = Captioner(open_bundle(store.directory(model) / "bundle"), device="cpu", threads=1)
    rows = rows_of(built)
    assert [row["id"] for row in rows] == ["bad.jpg", *(f"below/{seed}.png" for seed in range(5))]
    expected = captioner.caption([decode_picture(picture_bytes(seed)) for seed in range(5)])
    assert [row["caption"] for row in rows] == [None, *(caption.text for caption in expected)]
    assert [len(row["embedding"] or ()) for row in rows] == [0, *(len(caption.embedding) for caption in expected)]
    assert {row["model_version"] for row in rows} == {captioner.version}
    assert "are not a readable picture" in rows[0]["error"]
    assert pq.read_table(built.path / "failed.parquet").to_pylist() == [{"id": "bad.jpg", "error": rows[0]["error"]}]
    assert dict(built.ref.counts) == {"pictures": 6, "captioned": 5, "failed": 1}
    assert store.manifest(built.ref)["recipe"]["parents"] == {"finetuned_model": model.version}


def test_a_stopped_run_goes_on_with_the_blocks_that_are_left(place: tuple[Store, ArtifactRef], shop: Path) -> None:
    config = BulkConfig(pictures=str(shop), block_pictures=2, max_bad_fraction=0.2, num_beams=3)
    stopped, again = Here(until=2), Here()
    with pytest.raises(KeyboardInterrupt):
        build(place, config, stopped)
    said: list[str] = []
    built = build(place, config, again, said.append)
    assert (stopped.numbers, again.numbers) == ([0, 1], [2])
    assert any("going on behind 4 pictures of an earlier run" in line for line in said)
    whole = build(place, BulkConfig(**{**config.model_dump(), "max_new_tokens": 16}))
    assert rows_of(built) == rows_of(whole) and whole.ref.version != built.ref.version


def test_the_same_pictures_are_not_captioned_twice_and_changed_ones_are(
    place: tuple[Store, ArtifactRef], shop: Path
) -> None:
    config = BulkConfig(pictures=str(shop), block_pictures=4, max_bad_fraction=0.2, max_new_tokens=3)
    first, moved = build(place, config), Here()
    shop.rename(shop.with_name("moved"))
    elsewhere = BulkConfig(**{**config.model_dump(), "pictures": str(shop.with_name("moved")), "block_pictures": 3})
    assert build(place, elsewhere, moved).ref == first.ref and moved.numbers == []
    (shop.with_name("moved") / "below" / "0.png").write_bytes(picture_bytes(9))
    assert build(place, elsewhere).ref.version != first.ref.version


@pytest.mark.parametrize("as_struct", [True, False])
def test_a_tables_row_groups_are_its_blocks(place: tuple[Store, ArtifactRef], tmp_path: Path, as_struct: bool) -> None:
    data = [picture_bytes(0), None, picture_bytes(1), b"text", picture_bytes(2)]
    pictures = [{"bytes": one, "path": None} for one in data] if as_struct else data
    table = pa.table({"sku": [10, 11, 12, 13, 14], "image": pa.array(pictures)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    config = BulkConfig(pictures=str(tmp_path / "t.parquet"), id_column="sku", max_bad_fraction=0.5)
    run = Here()
    rows = rows_of(build(place, config, run))
    assert run.numbers == [0, 1, 2]
    assert [(row["id"], row["caption"] is None) for row in rows] == [
        ("10", False), ("11", True), ("12", False), ("13", True), ("14", False),
    ]  # fmt: skip
    assert rows[1]["error"] == "The row holds no picture's bytes."
    unnamed = rows_of(build(place, BulkConfig(**{**config.model_dump(), "id_column": ""})))
    assert [row["id"] for row in unnamed] == [f"t.parquet#{number}" for number in range(5)]


def test_too_many_failures_are_one_error_that_names_some(place: tuple[Store, ArtifactRef], shop: Path) -> None:
    config = BulkConfig(pictures=str(shop))
    with pytest.raises(
        UnusableSourceError,
        match=r"1 of 6 pictures failed, more than max_bad_fraction 0\.05: bad\.jpg: The bytes are .*raise max_bad",
    ):
        build(place, config)
    again = Here()
    assert build(place, BulkConfig(pictures=str(shop), max_bad_fraction=1), again).ref.counts["failed"] == 1
    assert again.numbers == []  # the blocks were kept


def test_sources_that_hold_nothing_to_caption(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SourceError, match="holds neither picture files nor a Parquet table"):
        plan_of(BulkConfig(pictures=str(tmp_path)))
    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "t.parquet")
    with pytest.raises(SourceError, match=r"t\.parquet has no column image, sku; it has picture\. Set picture_column"):
        plan_of(BulkConfig(pictures=str(tmp_path / "t.parquet"), id_column="sku"))
    (tmp_path / "a.png").write_bytes(picture_bytes(0))
    with pytest.raises(SourceError, match="holds both picture files and Parquet tables"):
        plan_of(BulkConfig(pictures=str(tmp_path)))
    with pytest.raises(SourceError, match=r"There is no file .*none\.parquet\. Change pictures of bulk_captions"):
        plan_of(BulkConfig(pictures=str(tmp_path / "none.parquet")))


def test_all_faults_of_the_config_are_said_at_once() -> None:
    config = {"pictures": "", "block_pictures": 0, "max_bad_fraction": 2}
    with pytest.raises(Exception, match="3 things must change in the run config") as caught:
        check_run_config({"ops": {"caption_pictures": {"config": config}}})
    for name in config:
        assert f"caption_pictures.{name} is" in str(caught.value)


def test_the_page_on_serving_shows_a_config_that_is_taken() -> None:
    page = (Path(__file__).parents[4] / "docs" / "serving.md").read_text()
    (block,) = re.findall(r"^```yaml\n(ops:\n  caption_pictures:.*?)^```$", page, re.MULTILINE | re.DOTALL)
    config = yaml.safe_load(block)
    check_run_config(config)
    assert BulkConfig(**config["ops"]["caption_pictures"]["config"]).max_bad_fraction == 0.01


def test_without_a_champion_a_model_must_be_named(place: tuple[Store, ArtifactRef], tmp_path: Path) -> None:
    store, model = place
    with pytest.raises(
        ConfigError, match=r"No model has been released yet\. Materialize released_model, or set model_v"
    ):
        chosen_model(store, f"sqlite:///{tmp_path}/mlflow.db", "")
    named, version = chosen_model(store, f"sqlite:///{tmp_path}/mlflow.db", model.version)
    assert (named, version) == (model, open_bundle(store.directory(model) / "bundle").version)


@pytest.mark.parametrize(
    ("workers", "cluster", "expected"),
    [
        (0, {"CPU": 8.0}, (8, 0)),
        (0, {"CPU": 8.0, "GPU": 2.0}, (2, 1)),
        (3, {"CPU": 8.0, "GPU": 2.0}, (3, 1)),
        (3, {"CPU": 8.0}, (3, 0)),
    ],
)
def test_a_model_for_each_gpu_or_else_each_core(
    workers: int, cluster: dict[str, float], expected: tuple[int, int]
) -> None:
    options = placement(workers, cluster)
    assert (options["concurrency"], options["num_gpus"]) == expected
