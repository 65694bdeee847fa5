"""Expectations that Great Expectations does not bring: shapes of pictures, and leaks between splits.

Each is a metric over two columns and the expectation that uses it. Great Expectations registers both on import.
"""

# Great Expectations exports its metric providers without saying so.
# pyright: reportPrivateImportUsage=false

from typing import Any, Literal

import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnPairMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnPairMapMetricProvider,
    column_pair_condition_partial,
)

PAIR_DOMAIN = ("batch_id", "table", "column_A", "column_B", "row_condition", "condition_parser", "ignore_row_if")
IgnoredRows = Literal["both_values_are_missing", "either_value_is_missing", "neither"]


class AspectRatioAtMost(ColumnPairMapMetricProvider):
    """Whether the longer of two sides is at most `max_ratio` times the shorter; no ratio fits a side of 0."""

    condition_metric_name = "column_pair_values.aspect_ratio_at_most"
    condition_domain_keys = PAIR_DOMAIN
    condition_value_keys = ("max_ratio",)

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, max_ratio: float, **_: Any) -> pd.Series:
        shorter, longer = column_A.clip(upper=column_B), column_A.clip(lower=column_B)
        return (longer <= max_ratio * shorter) & (shorter > 0)


class ExpectAspectRatioToBeAtMost(ColumnPairMapExpectation):
    """The longer side of a picture (`column_A` x `column_B`) is at most `max_ratio` times the shorter."""

    map_metric = "column_pair_values.aspect_ratio_at_most"
    domain_keys = PAIR_DOMAIN
    success_keys = ("max_ratio", "mostly")
    args_keys = ("column_A", "column_B", "max_ratio")
    max_ratio: float
    ignore_row_if: IgnoredRows = "either_value_is_missing"


class AllInOne(ColumnPairMapMetricProvider):
    """Whether all rows that share the value of `column_A` share that of `column_B` too."""

    condition_metric_name = "column_pair_values.all_in_one"
    condition_domain_keys = PAIR_DOMAIN
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:
        return column_B.groupby(column_A).transform("nunique") == 1


class ExpectEachInOneSplit(ColumnPairMapExpectation):
    """All rows of one cluster or group (`column_A`) are in one split (`column_B`): what is kin does not leak."""

    map_metric = "column_pair_values.all_in_one"
    domain_keys = PAIR_DOMAIN
    success_keys = ("mostly",)
    args_keys = ("column_A", "column_B")
    ignore_row_if: IgnoredRows = "either_value_is_missing"
