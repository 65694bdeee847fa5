"""The state of a machine copied while it is written to, and put back: every file, every reference, every database."""

import json
import shutil
import sqlite3
import threading
from pathlib import Path

import dagster as dg
import pytest

from vlm_assets.cli.backup import INDEX, backup, restore
from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.release.ledger import Ledger
from vlm_assets.resources import write_ref
from vlm_assets.store import Draft, Store

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
KEY = dg.AssetKey(["finetuned_model"])


@dg.asset
def counted() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3})


def build(store: Store, text: str) -> ArtifactRef:
    def write(draft: Draft) -> None:
        (draft.path / "weights.txt").write_text(text)

    return store.build(Recipe("finetuned_model", "1", {"text": text}), write).ref


def put(home: Path, store: Store, text: str) -> ArtifactRef:
    """As a run does it: the artifact, then what names it: a reference and MLflow's database."""
    ref = build(store, text)
    write_ref(store.backend, KEY, "last", ref)
    with sqlite3.connect(home / "mlflow.db", timeout=30) as database:
        database.execute("CREATE TABLE IF NOT EXISTS versions (version TEXT)")
        database.execute("INSERT INTO versions VALUES (?)", (ref.version,))
    database.close()
    return ref


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copyfile(ROOT / "dagster_home" / "dagster.yaml", home / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    for name in ("VLM_STORE", "VLM_REQUEST_LOG", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (home / "request_log").mkdir()
    (home / "request_log" / "requests-1.parquet").write_bytes(b"rows")
    (home / "logs").mkdir()
    (home / "logs" / "dagster.log").write_text("not state")
    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([counted], instance=instance).success
    return home


def known_versions(home: Path) -> list[str]:
    with sqlite3.connect(home / "mlflow.db") as database:
        rows = database.execute("SELECT version FROM versions").fetchall()
    database.close()
    return [row[0] for row in rows]


def test_what_is_copied_while_it_is_written_comes_back_whole(home: Path, tmp_path: Path) -> None:
    store = Store(str(home / "store"))
    champion = put(home, store, "first")
    Ledger(store).promote(champion, "b1", seen=None, why="better", run_id="r", scores={})
    stop = threading.Event()

    def write_on() -> None:
        number = 0
        while not stop.is_set():
            put(home, store, f"later {number}")
            number += 1

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        assert backup(tmp_path / "copy") == 0
    finally:
        stop.set()
        writer.join()
    home.rename(tmp_path / "lost")

    said: list[str] = []
    assert restore(tmp_path / "copy", said.append) == 0

    restored = Store(str(home / "store"))
    versions = known_versions(home)
    assert versions[0] == champion.version
    for version in versions:  # whatever the databases name is there
        assert (home / "store" / "finetuned_model" / version / "weights.txt").is_file()
    last = ArtifactRef.from_json(json.loads((home / "store/refs/finetuned_model/last.json").read_text()))
    assert (restored.directory(last) / "weights.txt").is_file()
    found = Ledger(restored).champion()
    assert found is not None and found.artifact == champion
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(counted.key)
        assert event is not None and event.asset_materialization is not None
        assert event.asset_materialization.metadata["rows"].value == 3
    assert (home / "request_log" / "requests-1.parquet").read_bytes() == b"rows"
    assert not (home / "logs").exists()
    assert said[-1] == f"home: {home}"


def test_nothing_is_overwritten_and_nothing_damaged_comes_back(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    put(home, Store(str(home / "store")), "only")
    backup(copy)
    with pytest.raises(ConfigError, match=r"home is there and not empty\. Restoring never overwrites: move it away"):
        restore(copy)
    with pytest.raises(ConfigError, match=r"copy is there and not empty\. A backup wants a directory of its own"):
        backup(copy)
    with pytest.raises(ConfigError, match="lies in what is to be copied"):
        backup(home / "copy")

    home.rename(tmp_path / "lost")
    weights = next((copy / "home" / "store").rglob("weights.txt"))
    weights.write_text("0nly")
    with pytest.raises(StoreError, match=r"damaged, nothing was restored: missing or altered: home/store/.*weights"):
        restore(copy)
    assert not home.exists()
    (copy / INDEX).unlink()
    with pytest.raises(StoreError, match="is no whole backup"):
        restore(copy)


def test_what_lies_elsewhere_is_said(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://mlflow:secret@db/mlflow")
    outside = tmp_path / "request_log"
    outside.mkdir()
    (outside / "requests-2.parquet").write_bytes(b"more")
    monkeypatch.setenv("VLM_REQUEST_LOG", str(outside))
    said: list[str] = []
    backup(tmp_path / "copy", said.append)
    assert any("not in it: MLFLOW_TRACKING_URI, postgresql://mlflow:***@db/mlflow" in line for line in said)
    assert "secret" not in (tmp_path / "copy" / INDEX).read_text()

    home.rename(tmp_path / "lost")
    outside.rename(tmp_path / "lost_log")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "another"))
    with pytest.raises(ConfigError, match=r"was made of home .*/home, .*; the settings now say home .*/another"):
        restore(tmp_path / "copy")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    restore(tmp_path / "copy")
    assert (outside / "requests-2.parquet").read_bytes() == b"more"
