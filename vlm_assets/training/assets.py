"""Assets of the training group: where the model starts, and the candidate that comes of it."""

import base64
import json
from pathlib import Path
from typing import Any

import dagster as dg

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.resources import StoreResource, TrackerResource
from vlm_assets.training.base_on_demand import CODE_VERSION as BASE_CODE_VERSION
from vlm_assets.training.base_on_demand import base_metadata, build_base
from vlm_assets.training.checks import LOSS_FELL, SEVERITY, loss_fell
from vlm_assets.training.config import BaseModelConfig, FinetuneConfig
from vlm_assets.training.finetune import CURVES, SUMMARY, Inputs, write_candidate
from vlm_assets.training.ray_submit import train_on_ray

GROUP = "training"
OWNERS = ["team:vlm"]
CODE_VERSION = "5"
POOL = "compute"  # one training at a time on one machine


@dg.asset(
    group_name=GROUP,
    kinds={"python", "pytorch", "huggingface"},
    owners=OWNERS,
    code_version=BASE_CODE_VERSION,
    pool=POOL,
    description="Where the model starts: blip-mini pretrained here, a pinned hub revision, or a local directory.",
)
def base_model(
    context: dg.AssetExecutionContext, config: BaseModelConfig, store: StoreResource, tracker: TrackerResource
):
    """Independent of the data set: made once, reused by every fine-tuning that starts from it."""
    built = build_base(context, config, store, tracker)
    metadata = base_metadata(built)
    return dg.MaterializeResult(value=built.ref, data_version=dg.DataVersion(built.ref.version), metadata=metadata)


@dg.asset(
    group_name=GROUP,
    kinds={"python", "pytorch", "huggingface", "mlflow"},
    owners=OWNERS,
    code_version=CODE_VERSION,
    pool=POOL,
    check_specs=[
        dg.AssetCheckSpec(
            LOSS_FELL,
            asset="finetuned_model",
            description="Every training loss is finite, and the last point of the curve lies below the first.",
        )
    ],
    description="The candidate: weights, tokenizer, preprocessing contract, golden vectors, drift reference, card.",
)
def finetuned_model(
    context: dg.AssetExecutionContext,
    config: FinetuneConfig,
    store: StoreResource,
    tracker: TrackerResource,
    tokenized_shards: ArtifactRef,
    base_model: ArtifactRef,
    raw_dataset: ArtifactRef,
):
    """Fine-tune (or reuse), then make sure the registry knows the bundle."""
    opened = store.open()
    parents = (tokenized_shards, base_model, raw_dataset)
    recipe = Recipe("finetuned_model", CODE_VERSION, config.model_dump(), parents)
    lineage = {parent.name: parent.version for parent in parents} | {"finetuned_model": recipe.version}
    checks: list[dg.AssetCheckResult] = []

    def write(draft: Any) -> None:
        with tracker.run(context, "finetuned_model") as run:
            run.log_params({**config.model_dump(), **lineage})
            run.set_tags({"data_version": tokenized_shards.version, "code_version": CODE_VERSION})
            inputs = Inputs(*(opened.directory(ref) for ref in (base_model, tokenized_shards, raw_dataset)))
            lineage_of_run = lineage | {"dagster_run": context.run_id, f"{run.kind}_run": run.run_id}
            work = (draft.path, inputs, config, lineage_of_run, opened.scratch(recipe))
            if config.workers > 1:
                summary, checked = train_on_ray(context, *work, _metric(run))
                checks.extend(checked)
            else:
                summary = write_candidate(*work, context.log.info, _metric(run))
            run.log_artifact(draft.path / CURVES)
            run.set_tags({"bundle_version": summary["bundle_version"], "artifact_version": recipe.version})
            draft.counts.update(parameters=summary["parameters"], pairs=summary["pairs"])

    built = opened.build(recipe, write)
    bundle: dict[str, Any] = json.loads((built.path / "bundle" / "bundle.json").read_text())
    version = tracker.register(context, built, bundle["version"])
    return dg.MaterializeResult(
        value=built.ref,
        data_version=dg.DataVersion(built.ref.version),
        metadata={
            **_candidate_metadata(built.path, bundle),
            "mlflow_model_version": version,
            "dagster/uri": built.ref.uri,
        },
        check_results=checks or [_loss_check(built.path)],
    )


def _loss_check(path: Path) -> dg.AssetCheckResult:
    passed, seen = loss_fell(json.loads((path / SUMMARY).read_text()))
    severity = dg.AssetCheckSeverity[SEVERITY]
    return dg.AssetCheckResult(check_name=LOSS_FELL, passed=passed, severity=severity, metadata=seen)


def _metric(run: Any) -> Any:
    return lambda name, value, step: run.log_metric(f"finetune/{name}", value, step)


def _candidate_metadata(path: Path, bundle: dict[str, Any]) -> dict[str, Any]:
    summary = json.loads((path / SUMMARY).read_text())
    curves = base64.b64encode((path / CURVES).read_bytes()).decode()
    return {
        "bundle_version": bundle["version"],
        "parameters": summary["parameters"],
        "steps": summary["steps"],
        "pairs": summary["pairs"],
        "truncated_captions": summary["truncated_captions"],
        "train_loss": summary["train_loss"][-1][1] if summary["train_loss"] else None,
        "val_loss": summary["val_loss"][-1][1] if summary["val_loss"] else None,
        "val_cider": dict(summary["val_cider"]).get(summary["kept_step"]),
        "kept_step": summary["kept_step"],
        "pictures_per_s": round(summary["pictures_per_s"], 1),
        "seconds": round(summary["seconds"], 1),
        "resumed_from_step": summary["resumed_from_step"],
        "device": f"{summary['device']} in {summary['precision']}: {summary['precision_reason']}",
        "curves": dg.MetadataValue.md(f"![loss curves](data:image/png;base64,{curves})"),
        "lineage": dg.MetadataValue.json(bundle["lineage"]),
    }
