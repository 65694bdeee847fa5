"""Promoting and rolling back with a Ray Serve running: it answers from the champion that the ledger names."""

from pathlib import Path

import dagster as dg
import pytest

from tests.integration.test_serving import STOP_S, start, wait_for_address
from tests.unit.vlm_assets.release.place import REASON, Place
from vlm_assets.release.deploy import ServeResource
from vlm_assets.release.jobs import promote, rollback
from vlm_assets.resources import StoreResource, TrackerResource
from vlm_serving.client import CaptionClient

pytestmark = pytest.mark.integration


def test_the_running_application_follows_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path / "place")
    place.promote(0)
    first = place.store.directory(place.models[0]) / "bundle"
    process = start(tmp_path, "--bundle", str(first), "--port", "0", "--dashboard-port", "0")
    try:
        address = wait_for_address(process, tmp_path)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", address["auth_token_file"])
        resources = {
            "store": StoreResource(root=place.store.uri),
            "tracker": TrackerResource(uri=place.uri),
            "serve": ServeResource(address=address["dashboard_url"], http_url=address["http_url"]),
        }
        client = CaptionClient(address["http_url"])
        assert client.model_version() == place.bundles[0]
        config = {"ops": {"promote_version": {"config": {"version": place.bundles[1], "reason": REASON}}}}
        with dg.instance_for_test() as instance:
            promote.execute_in_process(run_config=config, resources=resources, instance=instance)
            assert client.model_version() == place.bundles[1]
            config = {"ops": {"roll_back_champion": {"config": {"reason": "captions in French"}}}}
            rollback.execute_in_process(run_config=config, resources=resources, instance=instance)
        assert client.model_version() == place.bundles[0] == place.alias()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_S)
