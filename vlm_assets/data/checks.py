"""The expectations as blocking asset checks: a critical failure stops the run, a warning is shown."""

from typing import TYPE_CHECKING

import dagster as dg

from vlm_assets.contracts import ArtifactRef
from vlm_assets.data.assets import raw_dataset as raw_dataset_asset
from vlm_assets.data.assets import validated_splits as validated_splits_asset
from vlm_assets.resources import StoreResource

if TYPE_CHECKING:
    from vlm_assets.data.expectations import Outcome


@dg.asset_check(
    asset=raw_dataset_asset,
    blocking=True,
    description="Great Expectations: identity, size, captions and formats of the snapshot",
)
def raw_expectations(store: StoreResource, raw_dataset: ArtifactRef) -> dg.AssetCheckResult:
    """Check the raw snapshot against its suite."""
    from vlm_assets.data.expectations import check, raw_frame, raw_suite

    return to_result(check(raw_frame(store.open().directory(raw_dataset)), raw_suite()))


@dg.asset_check(
    asset=validated_splits_asset,
    blocking=True,
    description="Great Expectations: no picture, near duplicate, group or held-out value leaks between splits",
)
def split_expectations(store: StoreResource, validated_splits: ArtifactRef) -> dg.AssetCheckResult:
    """Check the splits against their suite."""
    from vlm_assets.data.expectations import check, split_frame, split_suite

    return to_result(check(split_frame(store.open().directory(validated_splits)), split_suite()))


def to_result(outcomes: "list[Outcome]") -> dg.AssetCheckResult:
    """One check with one table row per expectation. Passed = all passed; a failed critical one makes it an ERROR."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    critical = [outcome for outcome in failed if outcome.severity == "critical"]
    named = "; ".join(f"{item.expectation} of {item.column or 'the table'}: {item.observed}" for item in failed)
    return dg.AssetCheckResult(
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
        description=named or f"all {len(outcomes)} expectations hold",
        metadata={
            "expectations": dg.MetadataValue.table([_record(outcome) for outcome in outcomes]),
            "failed_critical": len(critical),
            "failed_warnings": len(failed) - len(critical),
        },
    )


def _record(outcome: "Outcome") -> dg.TableRecord:
    return dg.TableRecord(
        {
            "expectation": outcome.expectation.removeprefix("expect_"),
            "column": outcome.column,
            "severity": outcome.severity,
            "ok": outcome.passed,
            "unexpected": outcome.unexpected_rows,
            "observed": outcome.observed,
        }
    )
