"""The champion measured week by week: it and not the last candidate, on pictures that it was not trained on."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.unit.vlm_assets.evaluation.shards import COLOURS, plain_png, square, write_split
from tests.unit.vlm_assets.evaluation.test_evaluate import CONFIG as REPORT_CONFIG
from tests.unit.vlm_assets.evaluation.test_evaluate import SHADES, write_model
from vlm_assets.contracts import ArtifactRef, Recipe, digest
from vlm_assets.data.picture_file import pixel_sha256, read_picture
from vlm_assets.errors import StoreError
from vlm_assets.evaluation.ancestry import released_on
from vlm_assets.evaluation.champion import Champion, write_champion_report
from vlm_assets.evaluation.champion_assets import NO_CHAMPION, champion_report
from vlm_assets.evaluation.config import ChampionConfig
from vlm_assets.evaluation.held_out import Pictures
from vlm_assets.evaluation.systems import Models
from vlm_assets.evaluation.write import write_evaluation
from vlm_assets.monitoring.corrections import Correction, Sifted
from vlm_assets.monitoring.feedback import write_corrections
from vlm_assets.release.ledger import Ledger
from vlm_assets.release.promotion import bundle_version, headline_scores
from vlm_assets.resources import RefIOManager, StoreResource, read_ref, write_ref
from vlm_assets.store import Draft, Store
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.feedback_log import FeedbackRow

Row = dict[str, Any]

CONFIG = ChampionConfig(resamples=100, batch_size=4, threads=1, min_pictures=5)
FIRST_RUN = "the run that released it"
TEST_ROWS: list[Row] = [square(name, shade) for name in COLOURS for shade in SHADES]  # twelve
CORRECTED = [(200, 40, 200), (90, 200, 200), (120, 120, 120)]


def put(
    store: Store, name: str, write: Callable[[Path], object], *parents: ArtifactRef, what: str = "", **counts: int
) -> ArtifactRef:
    def fill(draft: Draft) -> None:
        write(draft.path)
        draft.counts.update(counts)

    return store.build(Recipe(name, "1", parents=parents, inputs={"what": what}), fill).ref


def write_shards(folder: Path, rows: list[Row], model: Path) -> None:
    write_split(folder, "train", [square("red", -20), square("blue", -20)])
    write_split(folder, "test", rows)
    (folder / "summary.json").write_text("{}")
    shutil.copy(model / "bundle" / "contract.json", folder)


def write_splits(folder: Path, rows: list[Row], trained: list[str]) -> None:
    """Each picture by itself, but both green ones are of one sender."""
    places = [(row["image_id"], "test") for row in rows] + [(name, "train") for name in trained]
    table = [
        {
            "image_id": name, "sha256": f"sha of {name}", "split": split, "file_name": f"{name}.png",
            "cluster": "green sender" if name.startswith("green") else name,
        }
        for name, split in places
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(table), folder / "rows.parquet")


def write_scores(folder: Path) -> None:
    """What is read of the report of another model."""
    measured = {"splits": {"test": {"metrics": {"cider": {"value": 0.5}}}}}
    (folder / "scores.json").write_text(json.dumps({"systems": {"candidate": measured}}))


def original(row: Row) -> bytes:
    """The picture as it came: at 48 px, and without the shade that it has in the shards."""
    return plain_png(COLOURS[row["image_id"][:-2]], 48)


def write_raw(folder: Path) -> None:
    packed = [{"sha256": f"sha of {row['image_id']}", "image": {"bytes": original(row)}} for row in TEST_ROWS]
    pq.write_table(pa.Table.from_pylist(packed), folder / "pictures-00000.parquet")


def correction(colour: tuple[int, int, int]) -> Correction:
    return Correction(FeedbackRow(1.0, f"caption {colour}", f"a square of {colour}"), plain_png(colour, 64))


def picture_name(corrected: Correction) -> str:
    return pixel_sha256(read_picture(corrected.picture)[1])[:16]


class Place:
    """A store in which one model was released, and a later candidate was the last thing evaluated."""

    def __init__(self, root: Path, size_px: int = 32) -> None:
        self.root, self.store = root, StoreResource(root=str(root / "store")).open()
        self.base = put(self.store, "base_model", lambda path: write_model(path, 2))
        trained = ["red+9", "green-9", picture_name(correction(CORRECTED[0]))]
        before = put(self.store, "validated_splits", lambda path: write_splits(path, [], trained))
        shards = put(self.store, "tokenized_shards", lambda path: self.write(path, TEST_ROWS), before)
        self.champion = put(self.store, "finetuned_model", lambda path: write_model(path, 3, size_px), shards)
        self.candidate = put(self.store, "finetuned_model", lambda path: write_model(path, 1))
        for ref in (self.base, self.candidate):
            write_ref(self.store.backend, dg.AssetKey(ref.name), "last", ref)

    def write(self, folder: Path, rows: list[Row]) -> None:
        write_shards(folder, rows, self.store.directory(self.base))

    def release(self, said: list[Row]) -> ArtifactRef:
        """Evaluate the champion on these pictures, and release it."""
        self.write(self.root / "then", said)
        models = Models(self.store.directory(self.champion), self.store.directory(self.base))

        def evaluate(folder: Path) -> None:
            write_evaluation(folder, self.root / "then", models, REPORT_CONFIG, {}, lambda _: None)

        report = put(self.store, "eval_report", evaluate, self.champion)
        write_ref(self.store.backend, dg.AssetKey("eval_report"), FIRST_RUN, report)
        last = put(self.store, "eval_report", write_scores, self.candidate)
        write_ref(self.store.backend, dg.AssetKey("eval_report"), "last", last)
        scores = headline_scores(self.store.directory(report))
        self.promote(self.champion, scores)
        return report

    def promote(self, model: ArtifactRef, scores: dict[str, float], run_id: str = FIRST_RUN) -> None:
        ledger = Ledger(self.store)
        version = bundle_version(self.store, model)
        ledger.promote(model, version, seen=ledger.champion(), why="", run_id=run_id, scores=scores)

    def correct(self) -> None:
        """Three pictures were corrected; one of them trained the champion."""
        sifted = Sifted([correction(colour) for colour in CORRECTED])
        ref = put(self.store, "feedback_captions", lambda path: write_corrections(path, sifted, print), accepted=3)
        write_ref(self.store.backend, dg.AssetKey("feedback_captions"), "last", ref)

    def says(self, size_px: int = 32) -> dict[str, str]:
        """What the champion says when it is asked directly: of the test pictures, or of their originals."""
        captioner = Captioner(open_bundle(self.store.directory(self.champion) / "bundle"), threads=1)
        pictures = [row["image"]["bytes"] if size_px == 32 else original(row) for row in TEST_ROWS]
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1) for data in pictures])
        names = [row["image_id"] for row in TEST_ROWS]
        return dict(zip(names, (one.text for one in captioner.caption_pixels(pixels)), strict=True))

    def materialize(self, rows: list[Row] = TEST_ROWS) -> tuple[Row, Row, dg.AssetCheckEvaluation]:
        """The asset on these test pictures: its scores.json, metadata and check."""
        raw = put(self.store, "raw_dataset", write_raw, what=digest(str(rows)))
        splits = put(self.store, "validated_splits", lambda path: write_splits(path, rows, ["blue-20"]), raw)
        shards = put(self.store, "tokenized_shards", lambda path: self.write(path, rows), splits, raw, self.base)
        write_ref(self.store.backend, dg.AssetKey("tokenized_shards"), "last", shards)
        resource = StoreResource(root=self.store.uri)
        resources = {"store": resource, "io_manager": RefIOManager(store=resource)}
        others = [dg.AssetSpec(name) for name in ("tokenized_shards", "released_model", "feedback_captions")]
        with dg.instance_for_test() as instance:
            result = dg.materialize(
                [champion_report, *others], selection=[champion_report], instance=instance, resources=resources,
                run_config=dg.RunConfig({"champion_report": CONFIG}),
            )  # fmt: skip
        [event] = result.asset_materializations_for_node("champion_report")
        [check] = result.get_asset_check_evaluations()
        metadata = {name: entry.value for name, entry in event.metadata.items()}
        self.made = read_ref(self.store.backend, champion_report.key)
        if self.made is None:
            return {}, metadata, check
        self.path = self.store.directory(self.made)
        return json.loads((self.path / "scores.json").read_text()), metadata, check


def test_without_a_champion_it_says_so_and_nothing_fails(tmp_path: Path) -> None:
    place = Place(tmp_path)
    _, metadata, check = place.materialize()
    assert metadata == {"champion": NO_CHAMPION}
    assert (check.passed, check.description) == (True, NO_CHAMPION)
    assert not (tmp_path / "store" / "champion_report").exists()


def test_the_champion_is_measured_on_what_did_not_train_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.release(TEST_ROWS)
    place.correct()
    scores, metadata, check = place.materialize()
    champion = open_bundle(place.store.directory(place.champion) / "bundle")
    assert scores["champion"] == {"version": champion.version, "trained_on_is_known": True}
    assert metadata["champion"] == champion.version
    said = pq.read_table(place.path / "captions.parquet").to_pylist()
    tested = {row["image_id"]: row["caption"] for row in said if row["split"] == "test"}
    assert set(tested) == {row["image_id"] for row in TEST_ROWS} - {"red+9", "green-9", "green+9"}
    assert tested.items() <= place.says().items()
    assert (metadata["pictures"], metadata["left_out"]) == (9, 3)
    assert metadata["cider"] == scores["pictures"]["test"]["metrics"]["cider"]["value"]
    assert scores["pictures"]["test"]["metrics"]["cider"]["n"] == 9
    corrected = {row["image_id"]: row["references"] for row in said if row["split"] == "corrections"}
    known = [correction(colour) for colour in CORRECTED[1:]]
    assert corrected == {picture_name(one): [one.row.caption] for one in known}
    assert (metadata["corrections"], metadata["corrections_left_out"]) == (2, 1)
    assert metadata["corrections_exact_match"] == 0
    assert "sample of mistakes" in metadata["corrections_note"]
    assert check.passed
    assert metadata["cider_at_release"] == metadata["cider_change"] == 0
    assert (metadata["pictures_at_release"], metadata["pictures_of_both"]) == (12, 9)
    before = place.made
    assert (place.materialize()[1]["reused"], place.made) == (True, before)


def test_another_champion_or_other_pictures_are_another_report(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.promote(place.champion, {})
    assert place.materialize()[1]["pictures"] == 9
    first = place.made
    assert place.materialize(TEST_ROWS[:6])[1]["pictures"] == 3  # what trained it is among them
    assert place.made != first
    place.promote(place.candidate, {})
    scores, metadata, check = place.materialize()
    assert place.made != first
    assert metadata["champion"] == bundle_version(place.store, place.candidate)
    assert "may have trained it" in metadata["note"]  # its splits are not in the store
    assert scores["pictures"]["test"]["left_out"] == 0
    why = "not compared with its release: the store has no report of it"
    assert (check.passed, check.description, metadata["since_release"]) == (True, why, why)


def test_what_is_surely_worse_than_at_its_release_warns(tmp_path: Path) -> None:
    """At its release most references were what it says; today people call these pictures something else."""
    place = Place(tmp_path)
    says = place.says()
    wrong = {row["image_id"] for row in TEST_ROWS[:2]}
    then = [row if (name := row["image_id"]) in wrong else {**row, "captions": [says[name]]} for row in TEST_ROWS]
    place.release(then)
    _, metadata, check = place.materialize()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description and check.description.startswith("CIDEr is surely lower than at its release: 0.00 now, ")
    assert metadata["exact_match"] == 0
    assert metadata["cider_at_release"] > 1
    assert metadata["cider_change_low"] <= metadata["cider_change"] <= metadata["cider_change_high"] < 0
    [cider, exact] = [record.data for record in metadata["since_release"].records]
    assert (cider["metric"], cider["now"]) == ("CIDEr", "0.00")
    assert (exact["now"], exact["at release"], exact["change"]) == ("0.0 %", "83.3 %", "-83.3 points")


def test_a_champion_for_other_picture_sizes_reads_the_originals(tmp_path: Path) -> None:
    place = Place(tmp_path, size_px=48)
    place.promote(place.champion, {})
    place.materialize()
    said = pq.read_table(place.path / "captions.parquet").to_pylist()
    assert {row["image_id"]: row["caption"] for row in said}.items() <= place.says(48).items()


def test_the_report_of_its_release_is_the_one_whose_figures_the_ledger_has(tmp_path: Path) -> None:
    place = Place(tmp_path)
    report, scores = place.release(TEST_ROWS), Ledger(place.store).entries()[-1].scores
    assert released_on(place.store, Ledger(place.store).entries()) == report
    place.promote(place.candidate, {})
    assert released_on(place.store, Ledger(place.store).entries()) is None
    place.promote(place.champion, dict(scores))  # rolled back
    assert released_on(place.store, Ledger(place.store).entries()) == report
    place.promote(place.candidate, {})
    place.promote(place.champion, dict(scores), run_id="by hand")
    assert released_on(place.store, Ledger(place.store).entries()) == report
    place.promote(place.champion, {**scores, "cider": 9.9})
    assert released_on(place.store, Ledger(place.store).entries()) is None


def measure(place: Place, out: Path, champion: Champion) -> Row:
    """Without Dagster, and on shards that came without what they were made from."""
    place.write(out / "shards", TEST_ROWS)
    return write_champion_report(out, champion, Pictures(out / "shards"), CONFIG, {}, lambda _: None)


def test_shards_from_elsewhere_do_for_a_champion_of_their_size_only(tmp_path: Path) -> None:
    place = Place(tmp_path, size_px=48)
    with pytest.raises(StoreError, match=r"takes 48 px pictures, these shards hold 32 px, and what they were made"):
        measure(place, tmp_path, Champion(place.store.directory(place.champion)))
    scores = measure(place, tmp_path, Champion(place.store.directory(place.candidate)))
    assert scores["pictures"]["test"]["n"] == 12


def test_a_champion_that_trained_on_all_of_it_has_no_figures(tmp_path: Path) -> None:
    place = Place(tmp_path)
    everything = frozenset(row["image_id"] for row in TEST_ROWS)
    scores = measure(place, tmp_path, Champion(place.store.directory(place.champion), everything))
    assert scores["pictures"]["test"] == {"n": 0, "left_out": 12, "metrics": {}}
    assert not (tmp_path / "captions.parquet").exists()
