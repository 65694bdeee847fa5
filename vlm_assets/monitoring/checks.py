"""Asset check of the monitoring group."""

import dagster as dg

from vlm_assets.contracts import ArtifactRef
from vlm_assets.monitoring.assets import drift_report as drift_report_asset
from vlm_assets.monitoring.drift import DRIFTED
from vlm_assets.monitoring.report import headline, read_report
from vlm_assets.resources import StoreResource


@dg.asset_check(
    asset=drift_report_asset,
    blocking=False,
    description="Traffic looks like the reference. Warns only: drift is a reason to retrain, not to stop serving.",
)
def no_drift(store: StoreResource, drift_report: ArtifactRef) -> dg.AssetCheckResult:
    """Passes without drift, and while there is too little traffic to tell."""
    report = read_report(store.open().directory(drift_report))
    return dg.AssetCheckResult(
        passed=report["verdict"] != DRIFTED,
        severity=dg.AssetCheckSeverity.WARN,
        description=headline(report),
        metadata={"window_id": report["window_id"], "n_traffic": report["n_traffic"]},
    )
