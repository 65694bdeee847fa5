"""A model that MLflow does not know yet is told apart from an MLflow that does not answer."""

from pathlib import Path

import mlflow
import pytest

from vlm_serving.bundle_source import pin_bundle
from vlm_serving.errors import BundleError, NotRegisteredError

pytestmark = pytest.mark.integration


def test_what_is_not_registered_yet_is_told_from_a_registry_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    with pytest.raises(NotRegisteredError, match=r"cannot tell what models:/captioner@champion is: .*not found"):
        pin_bundle("models:/captioner@champion")
    mlflow.MlflowClient(database, database).create_registered_model("captioner")  # registered, but no champion among it
    with pytest.raises(NotRegisteredError, match="alias champion not found"):
        pin_bundle("models:/captioner@champion")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BundleError, match="Connection refused") as caught:
        pin_bundle("models:/captioner@champion")
    assert not isinstance(caught.value, NotRegisteredError)
