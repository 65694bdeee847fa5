"""A code location with the real sensors and jobs that do nothing, for a real daemon."""

import dagster as dg

from vlm_assets.monitoring.news import News
from vlm_assets.monitoring.sensors import build_data_sensor, build_drift_sensor


@dg.op
def nothing() -> None:
    """Stands for the whole chain."""


@dg.job
def retrain() -> None:
    """Stands for the retraining job."""
    nothing()


@dg.job
def ask_for_captions() -> None:
    """Stands for the list of pictures to caption."""
    nothing()


drift_sensor = build_drift_sensor(retrain, ask_for_captions, look=lambda: News(1, False, "data"))
data_sensor = build_data_sensor(retrain)
defs = dg.Definitions(jobs=[retrain, ask_for_captions], sensors=[drift_sensor, data_sensor])
