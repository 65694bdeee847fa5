"""The base model as an asset makes it, also for a run that selects only what comes after it.

Shards hold what one base model reads: pictures of its size, ids of its vocabulary. Materializing them alone must not
fail in a fresh home, nor take the base model of another preset because it happens to be the last one made.
"""

import json
from typing import Any

import dagster as dg

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.resources import StoreResource, TrackerResource, write_ref
from vlm_assets.run_config import config_of
from vlm_assets.store import Built, Draft
from vlm_assets.training.base import base_inputs, write_base
from vlm_assets.training.config import BaseModelConfig

BASE_MODEL = dg.AssetKey("base_model")
CODE_VERSION = "4"


def build_base(
    context: dg.AssetExecutionContext, config: BaseModelConfig, store: StoreResource, tracker: TrackerResource
) -> Built:
    """Make the base model that `config` describes, or reuse it."""
    opened = store.open()
    recipe = Recipe("base_model", CODE_VERSION, config.model_dump(), inputs=base_inputs(config.start))

    def write(draft: Draft) -> None:
        pretrains = "pretraining takes minutes, and the lines below say how long still"
        effort = pretrains if config.start.kind == "blip_mini" else "fetched once"
        context.log.info(
            f"base_model {recipe.version} is not there yet and is made now, for this and later runs: {effort}"
        )
        with tracker.run(context, "base_model") as run:

            def metric(name: str, value: float, step: int) -> None:
                run.log_metric(f"base/{name}", value, step)

            run.log_params({"base_model": config.start.kind})
            lineage = {"base_model": recipe.version, "dagster_run": context.run_id}
            summary = write_base(draft.path, config.start, lineage, opened.scratch(recipe), context.log.info, metric)
            draft.counts["parameters"] = summary["parameters"]

    return opened.build(recipe, write)


def base_metadata(built: Built) -> dict[str, Any]:
    """What Dagster shows of a base model."""
    summary = json.loads((built.path / "base.json").read_text())
    return {
        "model": summary["name"],
        "description": summary["description"],
        "parameters": summary["parameters"],
        "dagster/uri": built.ref.uri,
    }


def base_of_this_run(
    context: dg.AssetExecutionContext, loaded: ArtifactRef | None, store: StoreResource, tracker: TrackerResource
) -> ArtifactRef:
    """The base model to work with. `loaded`: what the edge carries, None where there is nothing yet.

    A run that makes the base model uses that one. One that does not, but whose config describes a base model, uses the
    one described; without a description the last one made, or else the default. Missing, it is made here.
    """
    described = config_of(BASE_MODEL, context.run.run_config)
    if loaded is not None and (described is None or BASE_MODEL in _selected(context)):
        return loaded
    built = build_base(context, BaseModelConfig(**(described or {})), store, tracker)
    if not built.reused:
        context.log.info("base_model was not there yet and this run does not select it: made it on the way")
        version = {"dagster/data_version": built.ref.version}
        context.log_event(dg.AssetMaterialization(BASE_MODEL, metadata=base_metadata(built), tags=version))
    if built.ref != loaded:  # what comes after the shards reads the same one
        write_ref(store.open().backend, BASE_MODEL, "last", built.ref)
    return built.ref


def _selected(context: dg.AssetExecutionContext) -> set[dg.AssetKey]:
    return set(context.op_execution_context.job_def.asset_layer.selected_asset_keys)
