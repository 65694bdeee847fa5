"""Where test pictures come from and what belongs together: clusters, folders, and who trained on what."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.vlm_assets.evaluation.shards import ColourCaptioner, square, write_split
from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.evaluation.ancestry import trained_on
from vlm_assets.evaluation.baselines import with_captions
from vlm_assets.evaluation.config import EvalConfig
from vlm_assets.evaluation.evaluate import scores_json
from vlm_assets.evaluation.pictures import Texts
from vlm_assets.evaluation.predict import caption_split
from vlm_assets.evaluation.provenance import folder_of, placed, read_provenance
from vlm_assets.evaluation.scored import ScoredSystems, score_everything
from vlm_assets.evaluation.systems import System
from vlm_assets.resources import StoreResource
from vlm_assets.store import Store

COLOURS = ("red", "green", "blue", "black", "white", "yellow")
CONFIG = EvalConfig(resamples=100, min_slice=2)
NOTHING = Texts(captions=[], slots=[])


def write_splits(folder: Path) -> None:
    """Twelve test pictures of six senders; the green ones came by telephone. One more picture trains."""
    rows = [
        {
            "image_id": square(colour, shade)["image_id"], "split": "test", "cluster": f"{colour} sender",
            "file_name": f"{'phone' if colour == 'green' else 'web'}/2026/{colour}{shade}.png",
        }
        for colour in COLOURS
        for shade in (-9, 9)
    ]  # fmt: skip
    rows.append({"image_id": "red+0", "split": "train", "cluster": "other", "file_name": "red.png"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")


@pytest.fixture
def systems(tmp_path: Path) -> list[System]:
    """A candidate that looks, and a champion that always says green; with the provenance of their pictures."""
    test = write_split(tmp_path, "test", [square(colour, shade) for colour in COLOURS for shade in (-9, 9)])
    table = caption_split(ColourCaptioner(), test, 4, lambda _: None)
    write_splits(tmp_path)
    found = [
        System("candidate", "looks", captions={"test": table}),
        System("champion", "says green", captions={"test": with_captions(table, ["a green square"] * 12)}),
    ]
    return [placed(system, read_provenance(tmp_path)) for system in found]


def test_the_outermost_folder_is_the_source() -> None:
    assert [folder_of(name) for name in ("web/2026/a.png", "a.png", "", None)] == ["web", "", "", ""]


def test_numbers_are_of_pictures_from_clusters_and_folders_are_slices(systems: list[System]) -> None:
    scores = scores_json(systems, score_everything(systems, NOTHING, CONFIG), NOTHING, CONFIG)
    assert (scores["splits"]["test"]["n"], scores["splits"]["test"]["clusters"]) == (12, 6)
    cider = scores["systems"]["candidate"]["splits"]["test"]["metrics"]["cider"]
    assert (cider["n"], cider["clusters"]) == (12, 6)
    assert {(row["n"], row["clusters"]) for row in scores["differences"]} == {(12, 6)}
    sources = [row for row in scores["slices"] if row["kind"] == "source"]
    assert [(row["name"], row["n"], row["clusters"]) for row in sources] == [("web", 10, 5), ("phone", 2, 1)]
    alone = [replace(system, captions={"test": unplaced(system)}) for system in systems]
    apart = score_everything(alone, NOTHING, CONFIG)["champion"]["test"].metrics["exact_match"]
    together = score_everything(systems, NOTHING, CONFIG)["champion"]["test"].metrics["exact_match"]
    assert (apart["value"], apart["clusters"]) == (together["value"], 12)
    assert together["high"] - together["low"] > apart["high"] - apart["low"]


def unplaced(system: System) -> pa.Table:
    table = system.captions["test"]
    return table.set_column(table.schema.get_field_index("cluster"), "cluster", table["image_id"])


def against_champion(scored: ScoredSystems, systems: list[System]) -> tuple[int, dict[str, tuple[float, int, int]]]:
    scores = scores_json(systems, scored, NOTHING, CONFIG)
    rows = {row["metric"]: (row["value"], row["n"], row["clusters"]) for row in scores["differences"]}
    return scores["systems"]["champion"]["splits"]["test"]["left_out"], rows


def test_pictures_that_the_champion_was_trained_on_are_left_out_with_their_cluster(systems: list[System]) -> None:
    candidate, champion = systems
    fair = [candidate, champion]
    assert against_champion(score_everything(fair, NOTHING, CONFIG), fair)[1]["exact_match"] == (10 / 12, 12, 6)
    seen = [candidate, replace(champion, trained_on=frozenset({"red-9", "green+9", "not in test"}))]
    left_out, rows = against_champion(score_everything(seen, NOTHING, CONFIG), seen)
    assert left_out == 4  # two senders, with both of their pictures
    assert rows["exact_match"] == (1.0, 8, 4)  # it was right on green ones only
    assert rows["bleu_4"][1:] == (8, 4)
    everything = frozenset(candidate.captions["test"]["image_id"].to_pylist())
    known = [candidate, replace(champion, trained_on=everything)]
    assert against_champion(score_everything(known, NOTHING, CONFIG), known) == (12, {})


def put(store: Store, name: str, *parents: ArtifactRef) -> ArtifactRef:
    return store.build(Recipe(name, "1", parents=parents), lambda draft: write_splits(draft.path)).ref


def test_the_store_knows_what_trained_a_model_as_long_as_it_has_the_splits(tmp_path: Path) -> None:
    store = StoreResource(root=str(tmp_path)).open()
    splits = put(store, "validated_splits")
    model = put(store, "finetuned_model", put(store, "tokenized_shards", splits))
    assert trained_on(store, model) == {"red+0"}
    assert trained_on(store, put(store, "finetuned_model")) is None  # adopted from elsewhere
    (store.directory(splits) / "manifest.json").unlink()
    assert trained_on(store, model) is None
