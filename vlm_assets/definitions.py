"""Table of contents: what is made, in flow order, when it runs, and what it needs from outside.

Import this lightly: no torch, transformers, ray, mlflow, great_expectations or evidently before something materializes.
"""

import dagster as dg

from vlm_assets.bulk.jobs import bulk_captions
from vlm_assets.data.assets import raw_dataset, tokenized_shards, validated_splits
from vlm_assets.data.checks import raw_expectations, shard_expectations, split_expectations
from vlm_assets.evaluation.assets import eval_report
from vlm_assets.monitoring.assets import drift_report, request_log
from vlm_assets.monitoring.checks import no_drift
from vlm_assets.monitoring.feedback import feedback_captions, feedback_expectations
from vlm_assets.monitoring.sensors import build_drift_sensor, build_monitor_schedule
from vlm_assets.presets import preset_config
from vlm_assets.release.assets import released_model, serving_app
from vlm_assets.release.jobs import promote, rollback
from vlm_assets.resources import local_resources
from vlm_assets.training.assets import base_model, finetuned_model

assets = [
    feedback_captions,  # what people corrected, a source beside the main one
    raw_dataset, validated_splits, tokenized_shards,  # data: a source becomes leak-proof, model-ready shards
    base_model, finetuned_model,  # training: from where we start to the candidate
    eval_report,  # evaluation: scores with intervals, against baselines, base and champion
    released_model, serving_app,  # release: the gate, the ledger, the running application
    request_log, drift_report,  # monitoring: what was asked, and how far it is from what was learnt
]  # fmt: skip

everything = dg.AssetSelection.all()
watching = dg.AssetSelection.assets(request_log, drift_report)

captioner = dg.define_asset_job(
    "captioner", selection=everything, config=preset_config(), description="From the source to the served captioner."
)
retrain = dg.define_asset_job(
    "retrain", selection=everything - watching, config=preset_config(without=("request_log", "drift_report")),
    description="What drift asks for: the whole chain on what the source holds now, gate and deployment included.",
)  # fmt: skip
monitor = dg.define_asset_job(
    "monitor", selection=watching, description="Compact the request log and compare it with the reference."
)

defs = dg.Definitions(
    assets=assets,
    asset_checks=[raw_expectations, split_expectations, shard_expectations, no_drift, feedback_expectations],
    jobs=[captioner, retrain, monitor, promote, rollback, bulk_captions],
    sensors=[build_drift_sensor(retrain)],
    schedules=[build_monitor_schedule(monitor)],
    resources=local_resources(),
    # one process: the libraries load once, and no two steps fight for the cores with their thread pools
    executor=dg.in_process_executor,
)
