"""What is new since the champion: its own data are not, another preset's source and later corrections are."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.monitoring.news import CORRECTIONS, REPORT, news, source_fingerprint
from vlm_assets.release.gate import VERDICT, RuleResult, Verdict
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


def judged(store: Store, passed: bool, *corrections: ArtifactRef) -> ArtifactRef:
    """A later candidate of the source as it is now, and the gate's word on it."""
    raw = build(store, "raw_dataset", *corrections, source=source_fingerprint())
    model = build(store, "finetuned_model", build(store, "tokenized_shards", raw), attempt="2")
    verdict = Verdict((RuleResult("champion", passed, "as the test has it"),))

    def write(draft: Any) -> None:
        (draft.path / VERDICT).write_text(json.dumps(verdict.to_json()))

    recipe = Recipe("eval_report", "1", parents=(model,), inputs={"passed": str(passed)})
    write_ref(store.backend, REPORT, "last", store.build(recipe, write).ref)
    return model


@pytest.mark.parametrize("passed", [False, True])
def test_data_that_a_refused_candidate_learnt_from_are_no_news(store: Store, preset: Path, passed: bool):
    champion(store)
    (preset / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a red coat"}\n')
    corrections = build(store, "feedback_captions", accepted=3, source="1")
    write_ref(store.backend, CORRECTIONS, "last", corrections)
    candidate = judged(store, passed, corrections)
    known = news(store)
    # one that passed but was not released met some other trouble: its data are still to be learnt from
    assert known is not None and known.nothing is not passed
    assert known.refused == ("" if passed else candidate.version)
    write_ref(store.backend, CORRECTIONS, "last", build(store, "feedback_captions", accepted=5, source="2"))
    later = news(store)
    assert later is not None and later.corrections == (5 if passed else 2)


def test_a_refused_candidate_that_was_promoted_by_hand_is_the_champion(store: Store, preset: Path):
    champion(store)
    ledger = Ledger(store)
    model = judged(store, passed=False)
    ledger.promote(model, "bundle 2", seen=ledger.champion(), why="by hand", run_id="", scores={})
    known = news(store)
    assert known is not None and not known.refused
