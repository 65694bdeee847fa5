"""Every kind of source, in its genuine format, by the very command that docs/data.md gives for it.

The commands run in this process: `export` lines set the environment, `dagster` lines go to Dagster's command line.
"""

import csv
import io
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._cli import create_dagster_cli
from PIL import Image

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.pictures import encoded
from tests.unit.vlm_assets.data.sources import formats
from tests.unit.vlm_assets.data.sources.formats import Pair
from vlm_assets.contracts import Recipe
from vlm_assets.data.sources.openmoji import OpenMojiSource
from vlm_assets.data.tables import read_rows
from vlm_assets.presets import PRESETS
from vlm_assets.resources import write_ref
from vlm_assets.store import Store

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "data.md").read_text()
COMMANDS = dict(re.findall(r"^<!-- run: (\w+) -->\n```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
PICTURES = 60
ASSETS = ("raw_dataset", "validated_splits", "tokenized_shards")
Row = dict[str, Any]
Metadata = dict[str, Any]
Runner = Callable[[str, Path], dict[str, Metadata]]


class CommandFailedError(Exception):
    """Dagster's command line ended with an error; its output."""


@dataclass(frozen=True)
class Case:
    """One format: its kind, who writes the fixture, and what the metadata must say of it."""

    kind: str
    write: Callable[[Path, Sequence[Pair]], Path]
    captions_per_picture: int = 1
    put_aside: dict[str, int] = field(default_factory=dict[str, int])
    given_splits: dict[str, int] = field(default_factory=dict[str, int])  # pictures, by split; empty = none are given
    pictures_per_group: int = 0


def write_image_folder(root: Path, items: Sequence[Pair]) -> Path:
    lines = [{"file_name": f"{number:03}.jpg", "text": caption} for number, (_, caption) in enumerate(items)]
    for line, (data, _) in zip(lines, items, strict=True):
        formats.write(root / str(line["file_name"]), data)
    formats.write(root / "unnamed.jpg", formats.jpeg(1))
    formats.write(root / "metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return root


def write_table(root: Path, items: Sequence[Pair]) -> Path:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["picture", "description", "product"])
    for number, (data, caption) in enumerate(items):
        formats.write(root / "images" / f"{number:03}.jpg", data)
        table.writerow([f"{number:03}.jpg", caption, f"product {number // 2}"])
    table.writerow(["gone.jpg", "a picture that is not there", "product x"])
    formats.write(root / "items.csv", text.getvalue())
    return root


def write_huggingface(root: Path, items: Sequence[Pair]) -> Path:
    import datasets

    columns = {"image": [{"bytes": data, "path": None} for data, _ in items], "caption": [text for _, text in items]}
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    root.mkdir(parents=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(root / "train-00000-of-00001.parquet")
    return root


def write_webdataset(root: Path, items: Sequence[Pair]) -> Path:
    formats.write_webdataset(root, items)
    formats.write_tar(root / "00099.tar", [("orphan.txt", b"a text without a picture")])
    return root


CASES = {
    "image_folder": Case("image_folder", write_image_folder, put_aside={"no_metadata_line": 1}),
    "table": Case("table", write_table, put_aside={"missing_picture": 1}, pictures_per_group=2),
    "coco": Case("coco", formats.write_coco, 5),
    "karpathy": Case("coco", formats.write_karpathy, 5, given_splits={"train": 42, "val": 6, "test": 12}),
    "flickr30k-token": Case("flickr30k", formats.write_flickr30k_token, 5),
    "flickr30k-csv": Case("flickr30k", formats.write_flickr30k_csv, 5),
    "multimodal": Case("deepfashion", formats.write_multimodal, pictures_per_group=2),
    "inshop": Case("deepfashion", formats.write_inshop, pictures_per_group=2, given_splits={"test": 20}),
    "huggingface": Case("huggingface", write_huggingface),
    "webdataset": Case("webdataset", write_webdataset, put_aside={"missing_picture": 1}),
}


@pytest.fixture(scope="module")
def items() -> list[Pair]:
    """Drawings of people, spread over the roles, as JPEGs with their first captions."""
    drawn = {row.picture: row.captions[0] for row in OpenMojiSource("roles", 96)}  # some are drawn alike
    chosen = list(drawn.items())[:: len(drawn) // PICTURES][:PICTURES]
    return [(as_jpeg(png or b""), caption) for png, caption in chosen]


def as_jpeg(png: bytes) -> bytes:
    return encoded(Image.open(io.BytesIO(png)).convert("RGB"), "JPEG", quality=95)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Dagster home for all runs."""
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").write_text("telemetry: { enabled: false }\n")
    return home


@pytest.fixture
def run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Run the page's command for a kind on a fixture; returns the metadata of the assets."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("VLM_STORE", str(tmp_path / "store"))
    store = Store(tmp_path / "store")  # with a small base model: the default one takes minutes to pretrain
    base = store.build(Recipe("base_model", "1"), lambda draft: tiny_bundle(draft.path / "bundle"))
    write_ref(store.backend, dg.AssetKey("base_model"), "last", base.ref)

    def run_commands(kind: str, folder: Path) -> dict[str, Metadata]:
        for line in COMMANDS[kind].splitlines():
            words = shlex.split(line)
            if words[0] == "export":
                variable, _, path = words[1].partition("=")
                assert path.startswith("/path/to/")
                monkeypatch.setenv(variable, str(folder))
            else:
                assert words[0] == "dagster"
                done = CliRunner().invoke(create_dagster_cli(), words[1:])
                if done.exit_code != 0:
                    raise CommandFailedError(done.output)
        with dg.DagsterInstance.get() as instance:
            return {asset: metadata_of(instance, asset) for asset in ASSETS}

    return run_commands


@pytest.mark.parametrize("name", CASES)
def test_a_format_by_the_command_of_the_page(name: str, items: list[Pair], tmp_path: Path, run: Runner):
    case = CASES[name]
    metadata = run(case.kind, case.write(tmp_path / "set", items))

    raw = metadata["raw_dataset"]
    assert raw["dagster/row_count"] == PICTURES
    assert raw["captions"] == PICTURES * case.captions_per_picture
    assert counts_in(raw["quarantined"], "reason") == case.put_aside

    splits = metadata["validated_splits"]
    split_counts = counts_in(splits["splits"], "split")
    assert splits["dagster/row_count"] == sum(split_counts.values()) > 0.8 * PICTURES
    rows = read_rows(Path(splits["dagster/uri"]) / "rows.parquet")
    assert Counter(row["split"] for row in rows) == +Counter(split_counts)
    assert is_whole(rows, case.pictures_per_group)
    shards = metadata["tokenized_shards"]
    assert counts_in(shards["splits"], "split") == +Counter(split_counts)
    assert shards["word_pieces"] > 0
    for split, count in case.given_splits.items():
        dropped = PICTURES - len(rows)  # near duplicates that a given split would tear
        assert count - dropped <= split_counts[split] <= count


def test_an_unchanged_source_is_not_imported_again(items: list[Pair], tmp_path: Path, run: Runner):
    folder = formats.write_coco(tmp_path / "set", items)
    first, second = (run("coco", folder)["raw_dataset"] for _ in range(2))
    assert (first["reused"], second["reused"]) == (False, True)
    assert first["version"] == second["version"]


def spoil_json(folder: Path) -> str:
    file = folder / "dataset_coco.json"
    file.write_text(file.read_text()[:-40])
    return r"dataset_coco\.json:1: not JSON \(.* at column \d+\)"


def spoil_encoding(folder: Path) -> str:
    file = folder / "results.csv"
    file.write_bytes(file.read_bytes().replace(b"This is", b"C\xe9 is", 1))
    return r"results\.csv:4: not UTF-8 \(invalid continuation byte at byte \d+ of the line\)"


def spoil_shard(folder: Path) -> str:
    file = folder / "00001.tar"
    file.write_bytes(file.read_bytes()[:-20_000])
    return r"00001\.tar is no whole tar archive: it breaks off after \d+ members"


def spoil_pictures(folder: Path) -> str:
    for file in sorted(folder.rglob("*.jpg"))[:10]:
        file.write_text("no picture")
    return r"All rows read so far \(\d+ of [\d,]+\) are unusable \(not_a_picture"


@pytest.mark.parametrize(
    ("kind", "write", "spoil"),
    [
        ("coco", formats.write_karpathy, spoil_json),
        ("flickr30k", formats.write_flickr30k_csv, spoil_encoding),
        ("webdataset", formats.write_webdataset, spoil_shard),
        ("deepfashion", formats.write_multimodal, spoil_pictures),
    ],
)
def test_a_spoilt_source_ends_with_one_clear_sentence_and_leaves_nothing(
    kind: str, write: Callable[..., Path], spoil: Callable[[Path], str], items: list[Pair], tmp_path: Path, run: Runner
):
    folder = write(tmp_path / "set", items)
    message = spoil(folder)
    with pytest.raises(CommandFailedError, match=rf"vlm_assets\.errors\.\w*SourceError: .*{message}"):
        run(kind, folder)
    made = {file.parent.parent.name for file in (tmp_path / "store").rglob("manifest.json")}
    assert made == {"base_model"}


def test_the_page_has_a_command_for_every_kind_with_a_preset():
    presets = {path.stem for path in PRESETS.glob("*.yaml")} - {"blip-base", "clothing", "openmoji", "registry"}
    assert set(COMMANDS) == presets == {case.kind for case in CASES.values()}
    assert presets <= set(re.findall(r"^\| \[?`(\w+)`", PAGE, re.MULTILINE)), "and a row in the table"


def metadata_of(instance: dg.DagsterInstance, asset: str) -> Metadata:
    """What the UI shows of an asset, as plain values; tables stay what they are."""
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return {
        key: value if isinstance(value, dg.TableMetadataValue) else value.value
        for key, value in event.asset_materialization.metadata.items()
    }


def counts_in(table: dg.TableMetadataValue, name: str) -> dict[str, int]:
    """A table of counts as a dictionary."""
    return {str(record.data[name]): int(record.data["count"]) for record in table.records}


def is_whole(rows: Sequence[Row], pictures_per_group: int) -> bool:
    """Whether no group is torn; and whether there are groups, where there should be."""
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["groups"][0] or row["image_id"], set()).add(row["split"])
    groups = Counter(row["groups"][0] for row in rows if row["groups"][0])
    return all(len(found) == 1 for found in splits.values()) and max(groups.values(), default=0) == pictures_per_group
