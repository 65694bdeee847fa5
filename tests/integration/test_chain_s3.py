"""The whole chain with its store on a real S3 server: all is in the bucket, and another machine goes on there."""

from pathlib import Path

import pytest

from tests.integration.test_chain import CONFIG, run
from tests.seaweed import BUCKET, Seaweed, set_environment
from vlm_assets.release.ledger import Ledger
from vlm_assets.store import Store
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
MADE = {
    "raw_dataset", "validated_splits", "tokenized_shards", "base_model", "finetuned_model", "eval_report",
    "request_log", "drift_report", "champion_report",
}  # fmt: skip
PREFIX = "chain"
LIMIT_S = 430


def artifacts(seaweed: Seaweed) -> set[str]:
    """The keys of all artifacts' files, by asset and version."""
    return {key for key in seaweed.keys(PREFIX) if key.split("/")[1] in MADE}


def test_the_chain_on_s3_and_a_second_machine_that_makes_nothing_anew(
    seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machine(name: str) -> dict[str, str]:
        """Settings of a machine that has only its own home and cache."""
        (tmp_path / name).mkdir()
        cache = {"VLM_CACHE": str(tmp_path / name / "cache"), "VLM_STORE": f"s3://{BUCKET}/{PREFIX}"}
        return {**seaweed.environment(), **cache}

    first = run(tmp_path, CONFIG, settings=machine("one"), timeout_s=LIMIT_S)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    assert "captioned the golden picture" in first.stdout + first.stderr
    made = artifacts(seaweed)
    assert {key.split("/")[1] for key in made} == MADE
    assert not (tmp_path / "store").exists()

    settings = machine("two")
    second = run(tmp_path / "two", CONFIG, settings=settings, timeout_s=LIMIT_S)
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    assert artifacts(seaweed) == made

    set_environment(monkeypatch, settings)
    store = Store(settings["VLM_STORE"])
    ledger = Ledger(store)
    champion = ledger.champion()
    assert champion is not None and len(ledger.entries()) == 1
    bundle = open_bundle(store.directory(champion.artifact) / "bundle")
    assert Captioner(bundle, threads=1).check_golden() > 0
