"""`finetuned_model` in a process of its own: `python -m tests.integration.training.asset_run HOME INPUTS CONFIG`.

INPUTS and CONFIG are JSON: directories of the three artifacts it reads, and its config.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from vlm_assets.contracts import Recipe
from vlm_assets.resources import RefIOManager, StoreResource, TrackerResource
from vlm_assets.training.assets import finetuned_model

HEAVY = ("torch", "transformers", "ray")


def artifact(name: str, directory: str) -> dg.AssetsDefinition:
    """An asset that puts a directory into the store as it is."""

    @dg.asset(name=name)
    def made(store: StoreResource):
        def write(draft: Any) -> None:
            shutil.copytree(directory, draft.path, dirs_exist_ok=True)

        return store.open().build(Recipe(name, "1"), write).ref

    return made


def materialize(home: Path, inputs: dict[str, str], config: dict[str, Any]) -> dict[str, Any]:
    """What came of it: checks, metadata, and which heavy libraries this process has loaded by the end."""
    store = StoreResource(root=str(home / "store"))
    names = {"base": "base_model", "shards": "tokenized_shards", "raw": "raw_dataset"}
    result = dg.materialize(
        [*(artifact(names[key], path) for key, path in inputs.items()), finetuned_model],
        resources={
            "store": store,
            "tracker": TrackerResource(uri=f"sqlite:///{home}/mlflow.db"),
            "io_manager": RefIOManager(store=store),
        },
        run_config={"ops": {"finetuned_model": {"config": config}}},
    )
    (event,) = result.asset_materializations_for_node("finetuned_model")
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    return {
        "checks": {name: [check.passed, plain(check.metadata)] for name, check in checks.items()},
        "metadata": plain(event.metadata),
        "loaded": [name for name in HEAVY if name in sys.modules],
    }


def plain(metadata: Any) -> dict[str, Any]:
    """Metadata as JSON."""
    return {name: found.value for name, found in metadata.items() if isinstance(found.value, str | int | float)}


def main(home: Path, inputs: dict[str, str], config: dict[str, Any]) -> None:
    """Leaves `outcome.json` in HOME."""
    (home / "outcome.json").write_text(json.dumps(materialize(home, inputs, config)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]))
