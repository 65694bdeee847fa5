"""Promotions that race on a real S3 server: one entry per number, whoever asks first."""

import multiprocessing
import uuid
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from tests.seaweed import BUCKET, Seaweed, set_environment
from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import GateError
from vlm_assets.release.ledger import Ledger
from vlm_assets.store import Store

pytestmark = pytest.mark.integration
RACERS = 6
ROUNDS = 2


def artifact(version: str) -> ArtifactRef:
    return ArtifactRef("finetuned_model", version, f"somewhere/{version}", "00")


def race(uri: str, bundle: str, gate: Barrier, answers: "Queue[tuple[str, str]]") -> None:
    ledger = Ledger(Store(uri))
    seen = ledger.champion()
    gate.wait(60)
    try:
        ledger.promote(artifact(bundle), bundle, seen=seen, why="faster", run_id=bundle, scores={})
        answers.put((bundle, ""))
    except GateError as error:
        answers.put((bundle, str(error)))


def test_of_promotions_that_race_on_s3_one_wins_and_the_others_are_told(
    seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, {**seaweed.environment(), "VLM_CACHE": str(tmp_path / "cache")})
    uri, context = f"s3://{BUCKET}/ledger-{uuid.uuid4().hex[:8]}", multiprocessing.get_context("spawn")
    winners: list[str] = []
    for number in range(1, ROUNDS + 1):
        gate, answers = context.Barrier(RACERS), context.Queue()
        racers = [
            context.Process(target=race, args=(uri, f"{number}-{racer}", gate, answers)) for racer in range(RACERS)
        ]
        for racer in racers:
            racer.start()
        said = dict(answers.get(timeout=90) for _ in racers)
        for racer in racers:
            racer.join(30)
        [winner] = [bundle for bundle, error in said.items() if not error]
        winners.append(winner)
        lost = [error for error in said.values() if error]
        assert all(f"took ledger entry {number} first: promote of bundle {winner} by" in error for error in lost)
        assert len(lost) == RACERS - 1
    assert [entry.bundle_version for entry in Ledger(Store(uri)).entries()] == winners  # a whole chain
