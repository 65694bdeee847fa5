"""The expectations as blocking asset checks: a critical failure stops the run, a warning is shown."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from vlm_assets.contracts import ArtifactRef
from vlm_assets.data.assets import raw_dataset as raw_dataset_asset
from vlm_assets.data.assets import tokenized_shards as tokenized_shards_asset
from vlm_assets.data.assets import validated_splits as validated_splits_asset
from vlm_assets.data.config import SplitConfig
from vlm_assets.resources import StoreResource
from vlm_assets.run_config import config_of
from vlm_assets.store import Store

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuite

    from vlm_assets.data.expectations.suites import CheckedTable
    from vlm_assets.data.expectations.validate import Example, Outcome


@dg.asset_check(
    asset=raw_dataset_asset,
    blocking=True,
    description="Great Expectations: identity, size, captions and formats of the snapshot",
)
def raw_expectations(
    context: dg.AssetCheckExecutionContext, store: StoreResource, raw_dataset: ArtifactRef
) -> dg.AssetCheckResult:
    """Check the raw snapshot against its suites, by the limits of its own settings and of the splits to come."""
    from vlm_assets.data.expectations.raw import RawLimits, raw_suites, raw_tables

    opened = store.open()
    path = opened.directory(raw_dataset)
    splits = SplitConfig(**(config_of(validated_splits_asset.key, context.run.run_config) or {}))
    allowed = opened.manifest(raw_dataset)["recipe"]["config"]["max_bad_fraction"]
    limits = RawLimits(allowed, splits.min_side_px, splits.max_aspect_ratio)
    return checked(opened, raw_dataset, raw_tables(path), raw_suites(limits), pictures=path)


@dg.asset_check(
    asset=validated_splits_asset,
    blocking=True,
    description="Great Expectations: no picture, near duplicate, group or held-out value leaks between splits",
)
def split_expectations(store: StoreResource, validated_splits: ArtifactRef) -> dg.AssetCheckResult:
    """Check the splits against their suites."""
    from vlm_assets.data.expectations.splits import split_suites, split_tables

    opened = store.open()
    pictures = opened.directory(opened.parent(validated_splits, "raw_dataset"))
    tables = split_tables(opened.directory(validated_splits))
    return checked(opened, validated_splits, tables, split_suites(), pictures=pictures)


@dg.asset_check(
    asset=tokenized_shards_asset,
    blocking=True,
    description="Great Expectations: shards are whole, disjoint, and in the form that the model takes",
)
def shard_expectations(store: StoreResource, tokenized_shards: ArtifactRef) -> dg.AssetCheckResult:
    """Check the shards against the very splits and the very model that they were made from."""
    from vlm_assets.data.expectations.shards import read_model_input, shard_suites, shard_tables

    opened = store.open()
    path = opened.directory(tokenized_shards)
    shard_mb = opened.manifest(tokenized_shards)["recipe"]["config"]["shard_mb"]
    model = read_model_input(opened.directory(opened.parent(tokenized_shards, "base_model")) / "bundle")
    splits = opened.directory(opened.parent(tokenized_shards, "validated_splits"))
    tables, suites = shard_tables(path, splits, model), shard_suites(model, shard_mb)
    return checked(opened, tokenized_shards, tables, suites, pictures=path)


def checked(
    store: Store,
    ref: ArtifactRef,
    tables: "Iterable[CheckedTable]",
    suites: "Sequence[ExpectationSuite]",
    pictures: Path,
) -> dg.AssetCheckResult:
    """Validate, write the page, and say both. `pictures`: the artifact that holds the pictures of the examples."""
    from vlm_assets.data.expectations.data_docs import write_data_docs
    from vlm_assets.data.expectations.validate import validate

    outcomes = validate(tables, suites)
    return to_result(outcomes, write_data_docs(store, ref, outcomes, pictures))


def to_result(outcomes: "Sequence[Outcome]", data_docs: str) -> dg.AssetCheckResult:
    """One check with one table row per expectation. Passed = all passed; a failed critical one makes it an ERROR."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    critical = [outcome for outcome in failed if outcome.severity == "critical"]
    named = "; ".join(_failure(outcome) for outcome in [*critical, *(item for item in failed if item not in critical)])
    return dg.AssetCheckResult(
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
        description=named or f"all {len(outcomes)} expectations hold",
        metadata={
            "data_docs": dg.MetadataValue.path(data_docs),
            "expectations": dg.MetadataValue.table([_record(outcome) for outcome in outcomes]),
            "failed_critical": len(critical),
            "failed_warnings": len(failed) - len(critical),
        },
    )


def _failure(outcome: "Outcome") -> str:
    return f"does not hold: {outcome.says} ({outcome.table}: {outcome.observed}). {outcome.advice}"


def _record(outcome: "Outcome") -> dg.TableRecord:
    return dg.TableRecord(
        {
            "ok": outcome.passed,
            "severity": outcome.severity,
            "table": outcome.table,
            "says": outcome.says,
            "expectation": outcome.expectation.removeprefix("expect_"),
            "column": outcome.column,
            "limit": outcome.limit,
            "observed": outcome.observed,
            "unexpected": outcome.unexpected_rows,
            "examples": "; ".join(_example(example) for example in outcome.examples),
        }
    )


def _example(example: "Example") -> str:
    return f"{example.row}: {example.value}" + (f" ({example.about})" if example.about else "")
