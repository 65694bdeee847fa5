"""What is new since the champion: its own data are not, another preset's source and later corrections are."""

from pathlib import Path
from typing import Any

import pytest

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.monitoring.news import CORRECTIONS, news, source_fingerprint
from vlm_assets.release.ledger import Ledger
from vlm_assets.resources import write_ref
from vlm_assets.store import Store


def build(store: Store, name: str, *parents: ArtifactRef, accepted: int = 0, **inputs: str) -> ArtifactRef:
    def write(draft: Any) -> None:
        (draft.path / "x").touch()
        draft.counts["accepted"] = accepted

    return store.build(Recipe(name, "1", parents=parents, inputs=inputs), write).ref


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two pictures in a preset, as a user writes it."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"a")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a coat"}\n')
    path = tmp_path / "preset.yaml"
    path.write_text(f"ops: {{raw_dataset: {{config: {{source: {{image_folder: {{path: '{folder}'}}}}}}}}}}")
    monkeypatch.setenv("VLM_PRESET", str(path))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def champion(store: Store, *corrections: ArtifactRef) -> None:
    raw = build(store, "raw_dataset", *corrections, source=source_fingerprint())
    model = build(store, "finetuned_model", build(store, "tokenized_shards", raw))
    Ledger(store).promote(model, "bundle", seen=None, why="test", run_id="", scores={})


def test_before_the_first_champion_nothing_is_known(store: Store):
    assert news(store) is None


def test_a_source_that_changed_is_news(store: Store, preset: Path):
    champion(store)
    known = news(store)
    assert known is not None and known.nothing
    (preset / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a red coat"}\n')
    changed = news(store)
    assert changed is not None and changed.source_changed
    assert changed.identity != known.identity


def test_corrections_accepted_since_are_news(store: Store, preset: Path):
    first = build(store, "feedback_captions", accepted=3, source="1")
    champion(store, first)
    write_ref(store.backend, CORRECTIONS, "last", first)
    known = news(store)
    assert known is not None and known.nothing
    write_ref(store.backend, CORRECTIONS, "last", build(store, "feedback_captions", accepted=10, source="2"))
    later = news(store)
    assert later is not None and later.corrections == 7
