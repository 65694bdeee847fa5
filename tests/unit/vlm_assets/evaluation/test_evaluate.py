"""The whole evaluation on two tiny models: every file, every number's place, reuse, the champion, bad inputs."""

import base64
import json
import re
from contextlib import contextmanager

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.evaluation.shards import COLOURS, ColourCaptioner, plain_png, square, write_split
from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.evaluation.assets import eval_report, report_recipe
from vlm_assets.evaluation.comparison import differences
from vlm_assets.evaluation.config import EvalConfig
from vlm_assets.evaluation.evaluate import scores_json
from vlm_assets.evaluation.originals import Originals
from vlm_assets.evaluation.pictures import read_texts, split_files
from vlm_assets.evaluation.predict import ONLY_OF_MODELS, caption_split
from vlm_assets.evaluation.scored import score_everything
from vlm_assets.evaluation.systems import (
    Models,
    System,
    baseline_systems,
    golden_facts,
    nearest_pictures,
    wanted_splits,
)
from vlm_assets.evaluation.write import write_evaluation
from vlm_assets.release.gate import GateConfig
from vlm_assets.release.ledger import Ledger
from vlm_assets.resources import RefIOManager, StoreResource, TrackerResource
from vlm_serving.bundle import open_bundle, seal_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.generation import GenerationOptions

ANYTHING_GOES = GateConfig(beat_baselines=False, max_empty_share=1, max_looping_share=1, max_most_frequent_share=1)
CONFIG = EvalConfig(resamples=100, min_slice=2, gallery_pictures=3, batch_size=4, threads=1, gate=ANYTHING_GOES)
SHORT = GenerationOptions(max_new_tokens=6)
SHADES = (-9, 9)


def write_shards(folder):
    """Training on dark colours only; the hard split holds a colour that training never saw."""
    seen = [name for name in COLOURS if name != "yellow"]
    write_split(folder, "train", [square(name, shade) for name in seen for shade in (-20, 0)], rows_per_file=4)
    write_split(folder, "test", [square(name, shade) for name in seen for shade in SHADES])
    write_split(folder, "test_unseen_colour", [square("yellow", shade) for shade in SHADES])
    write_split(folder, "val", [square("red", 5), square("blue", 5)])
    attribution = {"title": "Squares", "text": "Drawn by hand", "licence": "CC0"}
    (folder / "summary.json").write_text(json.dumps({"attribution": attribution}))
    return folder


def write_model(folder, seed, size_px=32, generation=SHORT):
    tiny_bundle(folder / "bundle", seed=seed, image_size_px=size_px, generation=generation)
    (folder / "base.json").write_text(json.dumps({"name": "tiny", "description": "tiny: random weights, for tests."}))
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    base = write_model(root / "base", seed=2)
    write_split(base / "general", "train", [square("red")])
    write_split(base / "general", "test", [square("green"), square("black")])
    return Models(write_model(root / "candidate", seed=1), base, write_model(root / "champion", seed=3))


@pytest.fixture(scope="module")
def written(shards, models, tmp_path_factory):
    out, lines = tmp_path_factory.mktemp("report"), []
    scores = write_evaluation(out, shards, models, CONFIG, {"finetuned_model": "f" * 16}, lines.append)
    return out, scores, lines


def test_every_system_is_measured_where_it_should_be(written):
    scores = written[1]
    assert {key: list(system["splits"]) for key, system in scores["systems"].items()} == {
        "candidate": ["test", "test_unseen_colour", "val", "general/test"],
        "champion": ["test"],
        "base": ["test", "general/test"],
        "copy": ["test", "test_unseen_colour"],
        "most_frequent": ["test", "test_unseen_colour"],
    }
    assert {name: split["n"] for name, split in scores["splits"].items()} == {
        "test": 10, "test_unseen_colour": 2, "val": 2, "general/test": 2,
    }  # fmt: skip


def test_scores_json_is_what_was_returned_and_complete(written):
    out, scores, _ = written
    assert json.loads((out / "scores.json").read_text()) == scores
    metrics = scores["systems"]["candidate"]["splits"]["test"]["metrics"]
    expected = {
        "cider",
        "exact_match",
        "rouge_l",
        "bleu_1",
        "bleu_2",
        "bleu_3",
        "bleu_4",
        "slot_accuracy",
        "slot.colour",
    }
    assert expected <= set(metrics)
    assert set(metrics["cider"]) == {"value", "low", "high", "n", "clusters"}
    assert scores["base"] == {"name": "tiny", "description": "tiny: random weights, for tests."}
    assert scores["systems"]["candidate"]["about"] == "tiny, fine-tuned"
    assert scores["lineage"] == {"finetuned_model": "f" * 16}
    assert scores["attribution"] == ["Pictures: Squares · Drawn by hand · CC0"]
    assert "random weights" in scores["note"]
    assert len(scores["splits"]["test"]["sha256"]) == 64


def test_copying_the_nearest_square_is_right_unless_its_colour_is_new(written):
    copy = written[1]["systems"]["copy"]["splits"]
    assert copy["test"]["metrics"]["exact_match"]["value"] == 1
    assert copy["test"]["metrics"]["slot_accuracy"]["value"] == 1
    assert copy["test_unseen_colour"]["metrics"]["slot_accuracy"]["value"] == 0
    assert copy["test"]["collapse"]["novel_share"] == 0
    constant = written[1]["systems"]["most_frequent"]["splits"]["test"]
    assert constant["collapse"]["distinct_share"] == 1 / 10
    assert constant["collapse"]["most_frequent_caption"] == "a black square"  # all equally common: the alphabet decides


def test_differences_are_paired_with_every_rival(written):
    rows = written[1]["differences"]
    pairs = {(row["against"], row["split"]) for row in rows if row["metric"] == "cider"}
    assert pairs == {
        ("champion", "test"), ("base", "test"), ("base", "general/test"), ("copy", "test"),
        ("copy", "test_unseen_colour"), ("most_frequent", "test"), ("most_frequent", "test_unseen_colour"),
    }  # fmt: skip
    exact = next(
        row for row in rows if (row["against"], row["split"], row["metric"]) == ("copy", "test", "exact_match")
    )
    assert exact["value"] == pytest.approx(-1)  # random weights say nothing right
    assert exact["high"] < 0


def test_all_captions_are_kept_with_their_scores(written):
    table = pq.read_table(written[0] / "captions.parquet")
    assert table.num_rows == (10 + 2 + 2 + 2) + 10 + (10 + 2) + 2 * (10 + 2)
    row = next(row for row in table.to_pylist() if (row["system"], row["split"]) == ("copy", "test"))
    assert row["caption"] == row["references"][0]
    assert row["score_exact_match"] == 1
    assert {name: row[name] for name in ONLY_OF_MODELS} == dict.fromkeys(ONLY_OF_MODELS)
    said = [row for row in table.to_pylist() if row["system"] in ("candidate", "champion", "base")]
    assert len(said) == (10 + 2 + 2 + 2) + 10 + (10 + 2)
    for row in said:
        assert len(row["word_probabilities"]) == len(row["caption"].split())
        assert all(0 < share <= 1 for share in row["word_probabilities"])
        assert len(row["token_ids"]) == row["token_count"]


def test_the_drawings_and_the_page_are_there(written):
    out = written[0]
    page = (out / "report.html").read_text()
    assert page.count("<figure>") == 3 + 3 + 3
    grids = re.findall(r'data-map="([^"]*)"', page)
    assert grids and {len(base64.b64decode(grid)) for grid in grids} == {2 * 2}  # patches of 16 px in 32 px
    assert any(max(base64.b64decode(grid)) == 255 for grid in grids)
    assert (out / "gallery.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_progress_names_system_and_split(written):
    starts = [line.split("  ")[0] for line in written[2]]
    assert "candidate on test" in starts and "base on general/test" in starts and "nearest training picture" in starts


def test_a_champion_for_other_picture_sizes_without_originals_is_named_but_not_compared(shards, models, tmp_path):
    other = write_model(tmp_path / "champion", seed=4, size_px=48)
    scores = write_evaluation(
        tmp_path, shards, Models(models.candidate, models.base, other), CONFIG, {}, lambda _: None
    )
    assert scores["systems"]["champion"]["splits"] == {}
    assert scores["systems"]["champion"]["about"] == "not compared: it takes 48 px pictures"
    assert not any(row["against"] == "champion" for row in scores["differences"])


def write_originals(root, shards):
    """A validated_splits and a raw_dataset as the shards' parents have them; pictures of 48 px."""
    rows = [row for file in split_files(shards, "test") for row in pq.read_table(file).to_pylist()]
    splits, raw = root / "splits", root / "raw"
    for folder in (splits, raw):
        folder.mkdir()
    ids = [{"image_id": row["image_id"], "sha256": f"sha of {row['image_id']}"} for row in rows]
    pq.write_table(pa.Table.from_pylist(ids), splits / "rows.parquet")
    for number, part in enumerate((rows[:4], rows[4:])):
        packed = [
            {
                "sha256": f"sha of {row['image_id']}",
                "image": {"bytes": plain_png(COLOURS[row["image_id"][:-2]], 48), "path": "a.png"},
            }
            for row in part
        ]
        pq.write_table(pa.Table.from_pylist(packed), raw / f"pictures-{number:05d}.parquet")
    return Originals(splits, raw)


def test_a_champion_for_other_picture_sizes_is_scored_anew_from_the_originals(shards, models, tmp_path):
    other = write_model(tmp_path / "champion", seed=4, size_px=48)
    originals = write_originals(tmp_path, shards)
    lines = []
    with_all = Models(models.candidate, models.base, other, originals)
    scores = write_evaluation(tmp_path, shards, with_all, CONFIG, {}, lines.append)
    champion = scores["systems"]["champion"]
    assert champion["splits"]["test"]["n"] == 10
    assert champion["about"] == "released before; on the same pictures at 48 px"
    assert {row["metric"] for row in scores["differences"] if row["against"] == "champion"} >= {"cider", "bleu_4"}
    assert any("takes 48 px pictures: scored on the same ones" in line for line in lines)
    said = pq.read_table(tmp_path / "captions.parquet", filters=[("system", "=", "champion")]).to_pylist()
    captioner = Captioner(open_bundle(other / "bundle"), threads=1)
    first = originals.pixels([said[0]["image_id"]], captioner.bundle.contract)
    assert first.shape == (1, 3, 48, 48)
    assert captioner.caption_pixels(first)[0].text == said[0]["caption"]


def test_a_picture_without_an_original_is_an_error(shards, tmp_path):
    originals = write_originals(tmp_path, shards)
    with pytest.raises(StoreError, match=r"1 of 2 pictures of the shards are not in .*the first: nobody"):
        originals.pixels(["red+9", "nobody"], None)


def test_a_base_for_other_picture_sizes_is_an_error(shards, models, tmp_path):
    base = write_model(tmp_path / "base", seed=4, size_px=48)
    with pytest.raises(ConfigError, match=r"takes 32 px pictures \(bicubic\), its base 48 px"):
        write_evaluation(tmp_path, shards, Models(models.candidate, base), CONFIG, {}, lambda _: None)


def test_golden_pictures_that_come_out_otherwise_are_told_to_the_gate(tmp_path):
    bundle = tiny_bundle(tmp_path / "bundle")
    assert golden_facts(tmp_path) == {"pictures": 3, "problem": ""}
    golden = json.loads((bundle / "golden.json").read_text())
    golden[0]["embedding"] = [-value for value in golden[0]["embedding"]]
    (bundle / "golden.json").write_text(json.dumps(golden))
    seal_bundle(bundle, {})
    found = golden_facts(tmp_path)
    assert found["pictures"] == 0
    assert "weights differ" in found["problem"]


def test_every_slice_carries_its_signs_of_collapse(written):
    slices = {(row["kind"], row["name"]): row for row in written[1]["slices"]}
    red = slices["colour", "red"]["collapse"]
    assert red["most_frequent_reference_share"] == 1  # both pictures of red squares are captioned alike
    assert 0 <= red["most_frequent_share"] <= 1
    assert written[1]["golden"] == {"pictures": 3, "problem": ""}


def test_shards_without_a_test_split_are_an_error(tmp_path):
    write_split(tmp_path, "train", [square("red")])
    with pytest.raises(ConfigError, match=r"no split 'test', only train\. Give validated_splits a larger share"):
        wanted_splits(tmp_path, ["test"])


def test_the_headline_is_always_among_the_splits(shards):
    assert wanted_splits(shards, ["val", "train"]) == ["test", "val"]
    assert wanted_splits(shards, ["test_*"]) == ["test", "test_unseen_colour"]


def test_a_captioner_that_looks_beats_both_baselines(tmp_path):
    """Numbers end to end: a perfect captioner against the commonest caption, on colours training never saw."""
    write_split(tmp_path, "train", [square("red"), square("red", 5), square("blue")])
    test = write_split(
        tmp_path, "test", [square(name, shade) for name in ("green", "white", "yellow") for shade in SHADES]
    )
    seen = System("candidate", "looks", captions={"test": caption_split(ColourCaptioner(), test, 4, lambda _: None)})
    training = read_texts(split_files(tmp_path, "train"))
    systems = [seen, *baseline_systems(seen, training, nearest_pictures(tmp_path, seen, lambda _: None))]
    scored = score_everything(systems, training, CONFIG)
    scores = scores_json(systems, scored, training, CONFIG)
    metrics = scores["systems"]["candidate"]["splits"]["test"]["metrics"]
    assert (metrics["exact_match"]["value"], metrics["slot_accuracy"]["value"]) == (1, 1)
    assert scores["systems"]["most_frequent"]["splits"]["test"]["collapse"]["most_frequent_caption"] == "a red square"
    by_rival = {row["against"]: row for row in differences(scored, CONFIG) if row["metric"] == "slot_accuracy"}
    assert {name: (row["value"], row["low"]) for name, row in by_rival.items()} == {
        "copy": (1, 1),
        "most_frequent": (1, 1),
    }
    slices = {(row["kind"], row["name"]): row for row in scores["slices"]}
    assert slices["colour", "white"]["n"] == 2
    assert slices["colour", "white"]["metrics"]["exact_match"]["value"] == 1


def ref(name, version):
    return ArtifactRef(name, version, f"somewhere/{name}", "0" * 64)


def test_the_champion_decides_the_version_and_threads_do_not():
    parents = (ref("tokenized_shards", "s"), ref("finetuned_model", "c"), ref("base_model", "b"))
    plain = report_recipe(CONFIG, parents, None)
    assert plain.version == report_recipe(CONFIG.model_copy(update={"threads": 4}), parents, None).version
    assert plain.version != report_recipe(CONFIG, parents, ref("finetuned_model", "a")).version
    assert plain.version != report_recipe(CONFIG.model_copy(update={"max_pictures": 3}), parents, None).version


class NotebookTracker(TrackerResource):
    """Writes down what would be tracked, in a file: Dagster hands each step its own copy of a resource."""

    path: str

    @contextmanager
    def run(self, context, stage):
        run = NotebookRun()
        yield run
        with open(self.path, "a") as file:
            file.write(json.dumps({"stage": stage, "metrics": run.metrics, "artifacts": run.artifacts}) + "\n")


class NotebookRun:
    def __init__(self):
        self.metrics, self.artifacts = {}, []

    def log_metrics(self, metrics):
        self.metrics |= metrics

    def log_artifact(self, path):
        assert path.is_file()
        self.artifacts.append(path.name)


def put(store, name, write, parents=()):
    return store.build(Recipe(name, "1", parents=parents), lambda draft: write(draft.path)).ref


def write_splits_behind(folder):
    """The validated_splits of `write_shards`: one test picture stood in the source twice."""
    seen = [name for name in COLOURS if name != "yellow"]
    splits = {"train": [(name, shade) for name in seen for shade in (-20, 0)],
              "test": [(name, shade) for name in seen for shade in SHADES]}  # fmt: skip
    rows = [
        {
            "image_id": (row := square(*key))["image_id"], "split": split, "cluster": row["image_id"],
            "file_name": f"drawn/{row['image_id']}.png",
            "captions": row["captions"], "row_captions": [[0, 1]] * (2 if key == ("red", 9) else 1),
        }
        for split, keys in splits.items()
        for key in keys
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    naive = {"leaked_test_rows": 0.4, "test_rows": 3.0}
    (folder / "summary.json").write_text(json.dumps({"naive_split": naive}))


def materialize(store, notebook, refs):
    """Run the asset with its inputs at hand, as Dagster does."""
    resource = StoreResource(root=store.uri)
    sources = [dg.AssetSpec(name) for name in refs]
    for name, made in refs.items():
        store.backend.write_text(f"refs/{name}/last.json", json.dumps(made.to_json()))
    resources = {
        "store": resource,
        "tracker": NotebookTracker(path=str(notebook)),
        "io_manager": RefIOManager(store=resource),
    }
    with dg.instance_for_test() as instance:
        result = dg.materialize(
            [eval_report, *sources], selection=[eval_report], instance=instance, resources=resources,
            run_config=dg.RunConfig({"eval_report": CONFIG}),
        )  # fmt: skip
        return result.output_for_node("eval_report"), result.asset_materializations_for_node("eval_report")[0].metadata


def test_the_asset_builds_tracks_and_reuses(tmp_path):
    store = StoreResource(root=str(tmp_path / "store")).open()
    splits = put(store, "validated_splits", write_splits_behind)
    refs = {
        "tokenized_shards": put(store, "tokenized_shards", write_shards, (splits,)),
        "finetuned_model": put(store, "finetuned_model", lambda path: write_model(path, 1)),
        "base_model": put(store, "base_model", lambda path: write_model(path, 2)),
    }
    notebook = tmp_path / "tracked.jsonl"
    made, metadata = materialize(store, notebook, refs)
    assert made.name == "eval_report"
    tracked = json.loads(notebook.read_text())
    assert tracked["stage"] == "eval_report"
    assert tracked["artifacts"] == ["report.html", "scores.json", "scores.png", "gallery.png"]
    assert tracked["metrics"]["candidate.test.cider"] == metadata["cider"].value
    assert metadata["report"].value == str(store.directory(made) / "report.html")
    assert metadata["gallery"].value.startswith("![gallery](data:image/png;base64,")
    first = metadata["scores"].records[0].data
    assert (first["captioner"], first["pictures"], first["n"]) == ("Fine\N{NON-BREAKING HYPHEN}tuned", "test", 10)
    assert {row.data["pictures"] for row in metadata["scores"].records} == {"test"}
    assert [row.data["n"] for row in metadata["scores_on_other_splits"].records] == [2, 2, 2, 2]
    assert "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}" in first["CIDEr"]  # one line per row in Dagster
    scores = json.loads((store.directory(made) / "scores.json").read_text())
    assert first["split"] == scores["splits"]["test"]["sha256"][:12]
    assert metadata["protocol"].value == "greedy, at most 6 tokens · 95 %: 100 resamples"
    assert (scores["leaks"]["rows"], scores["leaks"]["train_share"]) == (11, 0.5)
    assert 0 < scores["leaks"]["leaked_rows"] < 2  # the picture that stood there twice, in some of the draws
    assert metadata["leak_inflation"].value.startswith("a naive split leaks 0 of 3 test rows, to a copier worth CIDEr")
    Ledger(store).promote(refs["finetuned_model"], "v", seen=None, why="", run_id="", scores={})
    again, metadata_again = materialize(store, notebook, refs)
    assert again == made  # the candidate became champion: still the same report
    assert metadata_again == metadata
    assert len(notebook.read_text().splitlines()) == 1


def write_splits_before(folder):
    """Older splits: two of today's test pictures trained."""
    trained = [square(*key)["image_id"] for key in (("red", 9), ("blue", -9), ("white", 0))]
    rows = [{"image_id": name, "split": "train", "cluster": name, "file_name": name} for name in trained]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")


def test_a_champion_that_trained_on_pictures_of_today_s_test_is_compared_on_the_others(tmp_path):
    store = StoreResource(root=str(tmp_path / "store")).open()
    before = put(store, "validated_splits", write_splits_before, (put(store, "raw_dataset", lambda path: None),))
    old_shards = put(store, "tokenized_shards", lambda path: None, (before,))
    champion = put(store, "finetuned_model", lambda path: write_model(path, 3), (old_shards,))
    Ledger(store).promote(champion, "v", seen=None, why="", run_id="", scores={})
    refs = {
        "tokenized_shards": put(
            store, "tokenized_shards", write_shards, (put(store, "validated_splits", write_splits_behind),)
        ),
        "finetuned_model": put(store, "finetuned_model", lambda path: write_model(path, 1)),
        "base_model": put(store, "base_model", lambda path: write_model(path, 2)),
    }
    with pytest.raises(dg.DagsterError, match="not_worse_than_champion"):
        materialize(store, tmp_path / "tracked.jsonl", refs)
    [report] = (tmp_path / "store" / "eval_report").iterdir()
    scores = json.loads((report / "scores.json").read_text())
    measured = scores["systems"]["champion"]["splits"]["test"]
    assert (measured["n"], measured["left_out"]) == (10, 2)
    compared = {row["against"]: row["n"] for row in scores["differences"] if row["metric"] == "bleu_4"}
    assert (compared["champion"], compared["base"]) == (8, 10)
    rules = {rule["rule"]: rule["why"] for rule in json.loads((report / "verdict.json").read_text())["rules"]}
    assert rules["not_worse_than_champion"].startswith("only 8 independent test pictures (of 8) for the comparison")
    assert "; 2 test pictures left out, on which the champion was trained" in rules["not_worse_than_champion"]
