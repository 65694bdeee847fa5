"""One gauge with its labelled values, and the list of gauges that the exporter writes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily

JOB = "dagster_job"  # `job` is the scrape's own label in Prometheus
# all are gauges: what is counted here are rows of Dagster's tables, and tables are pruned. Times are Unix seconds.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "vlm_dagster_runs": ("Runs in the instance, by job and status.", (JOB, "status")),
    "vlm_dagster_last_run_ok": (
        "1 if the job's last finished run succeeded, 0 if failed or cancelled.",
        (JOB,),
    ),
    "vlm_dagster_last_run_end_timestamp_seconds": ("When the job's last finished run ended.", (JOB,)),
    "vlm_dagster_last_run_duration_seconds": ("How long that run took.", (JOB,)),
    "vlm_dagster_last_success_timestamp_seconds": ("When the job last succeeded.", (JOB,)),
    "vlm_dagster_run_seconds_30d": ("Seconds that the job's runs of the last 30 days took together.", (JOB,)),
    "vlm_dagster_daemon_healthy": ("1 if the daemon sends heartbeats and no errors.", ("daemon",)),
    "vlm_dagster_automation_running": ("1 if the sensor or schedule is switched on.", ("kind", "name")),
    "vlm_dagster_automation_last_tick_timestamp_seconds": ("When it last ticked.", ("kind", "name")),
    "vlm_dagster_automation_last_tick_ok": ("0 if its last tick raised.", ("kind", "name")),
    "vlm_asset_materialized_timestamp_seconds": ("When the asset was last materialized.", ("asset",)),
    "vlm_asset_metadata": ("Each number in the metadata of the asset's last materialization.", ("asset", "name")),
    "vlm_check_passed": ("1 if the asset check's last execution passed.", ("asset", "check", "severity")),
    "vlm_gate_passed": ("1 if all of the last eval_report's checks passed: the gate's verdict.", ()),
    "vlm_champion_since_timestamp_seconds": ("Since when this bundle is champion.", ("bundle_version",)),
    "vlm_drift_judged": ("1 if the last drift report had enough traffic to judge.", ()),
    "vlm_drift_drifted": ("1 if the last drift report's verdict is drifted.", ()),
    "vlm_drift_effect_size": ("Effect size of the last drift report that judged.", ()),
    "vlm_drift_p_value": ("P-value of the last drift report that judged.", ()),
}


@dataclass(frozen=True)
class Sample:
    """A value of the gauge `name`; `labels` in the order of GAUGES."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


def families(samples: Iterable[Sample]) -> Iterator[GaugeMetricFamily]:
    """Samples by gauge, as prometheus_client wants them; an unknown gauge or a wrong number of labels is an error."""
    for name, group in _by_name(samples).items():
        text, labels = GAUGES[name]
        family = GaugeMetricFamily(name, text, labels=labels)
        for sample in group:
            if len(sample.labels) != len(labels):
                raise ValueError(f"{name} has the labels {labels}, not values {sample.labels}.")
            family.add_metric(sample.labels, sample.value)
        yield family


def _by_name(samples: Iterable[Sample]) -> Mapping[str, Sequence[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.name, []).append(sample)
    return groups
