"""Promoting and rolling back with a Ray Serve running: it answers from the champion that ledger and registry name."""

from pathlib import Path

import dagster as dg
import pytest

from tests.integration.test_serving import STOP_S, start, wait_for_address
from tests.unit.vlm_assets.release.place import REASON, Place
from vlm_assets.errors import DeployError
from vlm_assets.release.deploy import ServeResource
from vlm_assets.release.jobs import promote, rollback
from vlm_assets.resources import StoreResource, TrackerResource
from vlm_serving.__main__ import main
from vlm_serving.bundle_source import local_bundle, pin_bundle
from vlm_serving.client import CaptionClient
from vlm_serving.errors import BundleError, NotRegisteredError

pytestmark = pytest.mark.integration


def test_the_running_application_follows_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path / "place")
    place.promote(0)
    first = place.store.directory(place.models[0]) / "bundle"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
    monkeypatch.setenv("VLM_BUNDLE_CACHE", str(tmp_path / "cache"))
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
        place.promote(2)  # of which Serve is not told
        monkeypatch.setenv("VLM_SERVE_FROM", "registry")
        with pytest.raises(
            DeployError, match=f"MLflow's champion is bundle {place.bundles[2]}, and {place.bundles[0]}"
        ):
            resources["serve"].deploy(first, place.bundles[0], print)
        third = place.store.directory(place.models[2]) / "bundle"
        assert resources["serve"].deploy(third, place.bundles[2], print).model_version == place.bundles[2]
        assert main(["deploy", "models:/captioner@champion", "--dashboard", address["dashboard_url"]]) == 0
        assert client.model_version() == place.bundles[2] == place.alias()
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [place.bundles[2]]
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_S)


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        (
            "http://127.0.0.1:9",
            r"MLflow at http://127\.0\.0\.1:9 cannot tell what models:/captioner@champion is: .*Set MLFLOW_TR",
        ),
        (
            "sqlite:///{folder}/new.db",
            r"cannot tell what models:/captioner@champion is: .*not found.* MLFLOW_TRACKING_URI",
        ),
    ],
)
def test_a_registry_that_cannot_tell_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, text: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(folder=tmp_path))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BundleError, match=text) as error:
        pin_bundle("models:/captioner@champion")
    assert isinstance(error.value, NotRegisteredError) == uri.startswith("sqlite")  # that one answers


def test_a_bundle_gone_from_the_store_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_BUNDLE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    with pytest.raises(BundleError, match=r"is no model bundle: it has no bundle\.json"):
        local_bundle(f"file://{tmp_path}/empty")
    with pytest.raises(BundleError, match=r"cannot be fetched from file://.*/none: "):
        local_bundle(f"file://{tmp_path}/none")
    with pytest.raises(BundleError, match=r"names no registered model. Write models:/NAME@ALIAS"):
        pin_bundle("models:/captioner")
    assert list((tmp_path / "cache").iterdir()) == []
