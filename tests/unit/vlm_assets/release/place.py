"""A store and an MLflow with models that wait to be released."""

import json
from pathlib import Path

from tests.tiny import tiny_bundle
from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.release.ledger import Ledger
from vlm_assets.release.promotion import force_promotion, roll_back
from vlm_assets.store import Store
from vlm_assets.training.model_registry import register_version
from vlm_assets.training.tracking import prepare_experiment

REASON = "the demo is tomorrow"


class Place:
    """A store with three registered models, none of them released yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")
        self.uri = f"sqlite:///{root / 'mlflow.db'}"
        prepare_experiment(self.uri, "captioner")
        self.models = [self._model(seed) for seed in range(3)]
        self.bundles = [self.seal(model)["version"] for model in self.models]

    def _model(self, seed: int) -> ArtifactRef:
        recipe = Recipe("finetuned_model", "1", {"seed": seed})
        ref = self.store.build(recipe, lambda draft: tiny_bundle(draft.path / "bundle", seed=seed)).ref
        source = str(self.store.directory(ref) / "bundle")
        register_version(self.uri, ref, source, self.seal(ref)["version"], "")
        return ref

    def seal(self, ref: ArtifactRef) -> dict[str, str]:
        return json.loads((self.store.directory(ref) / "bundle" / "bundle.json").read_text())

    def history(self) -> list[tuple[str, str, str]]:
        return [(one.action, one.previous_bundle_version, one.bundle_version) for one in Ledger(self.store).entries()]

    def alias(self) -> str:
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        return mlflow.MlflowClient().get_model_version_by_alias("captioner", "champion").tags["bundle_version"]

    def promote(self, number: int, reason: str = REASON):
        return force_promotion(self.store, self.uri, self.bundles[number], reason, "run")

    def roll_back(self, version: str = "", reason: str = REASON):
        return roll_back(self.store, self.uri, version, reason, "run")
