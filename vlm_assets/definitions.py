"""Table of contents: what is made, in flow order, when it runs, and what it needs from outside.

Import this lightly: no torch, transformers, ray, mlflow, great_expectations or evidently before something materializes.
"""

import dagster as dg

from vlm_assets.bulk.jobs import bulk_captions
from vlm_assets.data.assets import raw_dataset, tokenized_shards, validated_splits
from vlm_assets.data.checks import raw_expectations, shard_expectations, split_expectations
from vlm_assets.evaluation.assets import eval_report
from vlm_assets.evaluation.champion_assets import champion_report
from vlm_assets.monitoring.alert_sensors import check_failure_alert, run_failure_alert
from vlm_assets.monitoring.assets import drift_report, request_log
from vlm_assets.monitoring.checks import no_drift
from vlm_assets.monitoring.cost_assets import cost_report
from vlm_assets.monitoring.feedback import feedback_captions, feedback_expectations
from vlm_assets.monitoring.sensors import (
    build_data_sensor,
    build_drift_sensor,
    build_evaluation_schedule,
    build_monitor_schedule,
)
from vlm_assets.monitoring.wishlist_assets import wanted_captions
from vlm_assets.presets import preset_config
from vlm_assets.release.assets import released_model, serving_app
from vlm_assets.release.guard_sensor import build_guard_sensor
from vlm_assets.release.jobs import promote, rollback
from vlm_assets.resources import local_resources
from vlm_assets.training.assets import base_model, finetuned_model

assets = [
    feedback_captions,  # what people corrected: a source beside the main one
    raw_dataset, validated_splits, tokenized_shards,  # data: a source becomes leak-proof, model-ready shards
    base_model, finetuned_model,  # training: from where we start to the candidate
    eval_report,  # evaluation: scores with intervals, against baselines, base and champion
    released_model, serving_app,  # release: the gate, the ledger, the running application
    request_log, drift_report,  # monitoring: what was asked, and how far it is from what was learnt
]  # fmt: skip

everything = dg.AssetSelection.assets(*assets)
seen = ("request_log", "drift_report")
watching = dg.AssetSelection.assets(*seen)
beside = ("champion_report", "wanted_captions", "cost_report")  # in jobs of their own; a preset may describe them

captioner = dg.define_asset_job(
    "captioner", selection=everything, config=preset_config(without=beside),
    description="From the source to the served captioner.",
)  # fmt: skip
retrain = dg.define_asset_job(
    "retrain", selection=everything - watching, config=preset_config(without=(*seen, *beside)),
    description="What drift or new data ask for: the whole chain on what there is now, gate and deployment included.",
)  # fmt: skip
monitor = dg.define_asset_job(
    "monitor", selection=watching | dg.AssetSelection.assets(feedback_captions, cost_report),
    config=preset_config(only=(*seen, "feedback_captions", "cost_report")),
    description="Compact the request log, collect corrections, compare with the reference.",
)  # fmt: skip
now = ("feedback_captions", "raw_dataset", "validated_splits", "base_model", "tokenized_shards", "champion_report")
evaluate = dg.define_asset_job(
    "evaluate", selection=dg.AssetSelection.assets(*now), config=preset_config(only=now),
    description="The champion on the pictures as they are now: the source and the corrections are read anew.",
)  # fmt: skip
ask_for_captions = dg.define_asset_job(
    "ask_for_captions",
    selection=[wanted_captions],
    description="List the pictures whose captions would teach most.",
)

sensors = [
    build_drift_sensor(retrain, ask_for_captions), build_data_sensor(retrain),  # what asks for a retraining
    build_guard_sensor(rollback),  # what takes a bad champion back
    run_failure_alert, check_failure_alert,  # what tells people
]  # fmt: skip

defs = dg.Definitions(
    assets=[*assets, champion_report, wanted_captions, cost_report],
    asset_checks=[raw_expectations, split_expectations, shard_expectations, no_drift, feedback_expectations],
    jobs=[captioner, retrain, monitor, evaluate, ask_for_captions, promote, rollback, bulk_captions],
    sensors=sensors,
    schedules=[build_monitor_schedule(monitor), build_evaluation_schedule(evaluate)],
    resources=local_resources(),
    # one process: the libraries load once, and no two steps fight for the cores with their thread pools
    executor=dg.in_process_executor,
)
