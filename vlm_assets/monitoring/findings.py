"""What the drift reports in Dagster's event log say: the latest one, and how many before it agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from vlm_assets.monitoring.drift import DRIFTED

DRIFT_REPORT = dg.AssetKey("drift_report")
RELEASED_MODEL = dg.AssetKey("released_model")
DATA_VERSION_TAG = "dagster/data_version"
HISTORY_REPORTS = 50  # read back at most: no confirmation takes more windows


@dataclass(frozen=True)
class Finding:
    """What a drift report says. `confirmed`: so many windows in a row have drifted as its settings ask for."""

    verdict: str
    p_value: float
    effect_size: float
    n_traffic: int
    reference_version: str
    window_id: str
    released_model_version: str
    confirmed: bool
    windows_in_a_row: int

    @property
    def window(self) -> str:
        """Identity of what was compared with what."""
        return f"{self.reference_version}-{self.window_id}"


def latest_finding(instance: dg.DagsterInstance) -> Finding | None:
    """The latest drift report's verdict, read from its materialization's metadata."""
    return next(iter(findings(instance, 1)), None)


def findings(instance: dg.DagsterInstance, limit: int = HISTORY_REPORTS) -> list[Finding]:
    """The latest reports, the newest first."""
    records = instance.fetch_materializations(DRIFT_REPORT, limit=limit).records
    made = [record.asset_materialization for record in records]
    return [_finding(one.metadata) for one in made if one is not None]


def drifted_windows(found: Sequence[Finding]) -> list[str]:
    """Ids of the windows of one model that drifted in a row, the newest first; the same window looked at twice is one.

    A window with too little traffic neither confirms nor breaks the row.
    """
    windows: list[str] = []
    for one in found:
        if one.reference_version != found[0].reference_version or (one.verdict != DRIFTED and _judged(one)):
            break
        if one.verdict == DRIFTED and one.window_id not in windows:
            windows.append(one.window_id)
    return windows


def superseded(instance: dg.DagsterInstance, finding: Finding) -> bool:
    """Whether another model has been released since: the report is not about the model that serves now."""
    event = instance.get_latest_materialization_event(RELEASED_MODEL)
    if event is None or event.asset_materialization is None:
        return False
    released = (event.asset_materialization.tags or {}).get(DATA_VERSION_TAG)
    return released is not None and released != finding.released_model_version


def undrifted(finding: Finding) -> str:
    """Why a report is no reason to act."""
    if not _judged(finding):
        return f"Drift was not judged: {finding.verdict}."
    return f"No drift: p = {finding.p_value:.3g}, effect {finding.effect_size:.2g}, n = {finding.n_traffic} pictures."


def _judged(finding: Finding) -> bool:
    return finding.p_value == finding.p_value  # NaN: nothing was tested


def _finding(metadata: Any) -> Finding:
    values = {name: entry.value for name, entry in metadata.items()}
    return Finding(
        verdict=str(values.get("verdict", "")),
        p_value=_float(values.get("p_value")),
        effect_size=_float(values.get("effect_size")),
        n_traffic=int(_float(values.get("n_traffic", 0))),
        reference_version=str(values.get("reference_version", "")),
        window_id=str(values.get("window_id", "")),
        released_model_version=str(values.get("released_model_version", "")),
        confirmed=bool(values.get("confirmed", False)),
        windows_in_a_row=int(values.get("windows_in_a_row", 0)),
    )


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
