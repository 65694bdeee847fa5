"""A real server under traffic that does not pause for anything, and under more than it can do."""

import asyncio
from pathlib import Path

import pytest

from tests.load import continuous
from tests.load.bundles import random_bundle
from tests.load.continuous import Stretch, replicated
from tests.load.overload import overloaded
from tests.load.server import captioner_server
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.integration


def verdicts(stretches: list[Stretch]) -> None:
    """No request fails, not even one that a killed replica had in hand."""
    told = "\n".join(map(str, stretches))
    assert any(stretch.name.startswith("killed: ") for stretch in stretches), told
    for stretch in stretches:
        assert stretch.requests > 0, told
        assert stretch.failed == 0, told


@pytest.mark.timeout(600)
def test_updates_a_rollback_and_killed_replicas_cost_no_request(tmp_path: Path) -> None:
    old, new, third = (tiny_bundle(tmp_path / str(seed), seed=seed) for seed in range(3))
    stretches = continuous.run(tmp_path, (old, new, third), 300, 3, replicated(2))
    verdicts(stretches)
    by_name = {stretch.name: stretch for stretch in stretches}
    versions = [set(by_name[name].versions) for name in ("after good update", "after update that fails")]
    assert versions[0] == versions[1] and len(versions[0]) == 1  # the update that failed changed nothing
    assert set(by_name["after rollback"].versions) == set(by_name["before"].versions) != versions[0]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_requests(tmp_path: Path) -> None:
    old, new, third = (random_bundle(tmp_path / str(seed), "mini", seed=seed) for seed in range(3))
    stretches = continuous.run(tmp_path, (old, new, third), 10_000, 4, replicated(2))
    verdicts(stretches)
    assert sum(stretch.requests for stretch in stretches) >= 10_000


@pytest.mark.slow
def test_beyond_its_capacity_a_request_is_answered_or_refused_with_advice(tmp_path: Path) -> None:
    with captioner_server(tmp_path / "server") as server:
        server.deploy(random_bundle(tmp_path / "bundle", "mini"), {"max_waiting_pictures": 32})
        result = asyncio.run(overloaded(server.http_url, clients=16, factor=5, seconds=8))
    assert (result.broken, result.without_advice) == (0, 0), str(result)
    assert result.beyond.answered and result.beyond.statuses[503] + result.beyond.statuses[429] > 0, str(result)
