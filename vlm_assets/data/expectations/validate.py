"""Tables and suites in, one outcome per expectation out, each with the value seen and a few rows that break it."""

# Great Expectations exports its context without saying so.
# pyright: reportPrivateImportUsage=false

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationSuite
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

from vlm_assets.data.expectations.suites import CheckedTable

EXAMPLES_SHOWN = 5
VALUE_CHARACTERS, LIMIT_CHARACTERS = 160, 20
Severity = Literal["critical", "warning"]
# How the arguments of expectations that limit something are read aloud; the others say where to look.
LIMITS: Mapping[str, Callable[[Any], str]] = {
    "min_value": lambda value: f"at least {_shown(value)}",
    "max_value": lambda value: f"at most {_shown(value)}",
    "max_ratio": lambda value: f"at most {value:g} : 1",
    "value_set": lambda values: " or ".join(_shown(value, LIMIT_CHARACTERS) for value in values),
    "regex": lambda value: f"regex {value}",
    "mostly": lambda value: f"in {100 * value:g} % of the rows",
}


@dataclass(frozen=True)
class Example:
    """A row that breaks an expectation: what it is called (an image id, a file) and its value."""

    row: str
    value: str
    about: str = ""


@dataclass(frozen=True)
class Outcome:
    """One expectation, checked."""

    table: str  # what a row is: pictures, captions, files, ...
    expectation: str  # Great Expectations' name of it
    column: str
    says: str
    advice: str
    limit: str
    severity: Severity
    passed: bool
    rows: int
    unexpected_rows: int
    observed: str
    examples: tuple[Example, ...]


def validate(tables: Iterable[CheckedTable], suites: Sequence[ExpectationSuite]) -> list[Outcome]:
    """Check each table against the suite that bears its name; outcomes in the order in which the suites are written.

    Tables are taken one by one and let go: only one needs to be in memory.
    """
    by_table = {suite.name: suite for suite in suites}
    return [outcome for table in tables for outcome in _validated(table, by_table[table.name])]


def _validated(table: CheckedTable, suite: ExpectationSuite) -> list[Outcome]:
    # BASIC, not COMPLETE: the latter makes a dictionary of every row that breaks an expectation
    wanted = {"result_format": "BASIC", "partial_unexpected_count": EXAMPLES_SHOWN}
    batch = _context().data_sources.pandas_default.read_dataframe(table.frame)
    results = batch.validate(suite, result_format=wanted).results
    ordered = sorted(results, key=lambda item: item.expectation_config.meta["number"])
    return [_outcome(table, item) for item in ordered]


def _context() -> Any:
    """In memory, with no progress bars, no analytics, and no site that would claim a folder in /tmp."""
    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    quiet = ProgressBarsConfig(globally=False)
    config = DataContextConfig(store_backend_defaults=stores, progress_bars=quiet, analytics_enabled=False)
    return gx.get_context(mode="ephemeral", project_config=config)


def _outcome(table: CheckedTable, item: Any) -> Outcome:
    config, result = item.expectation_config, item.result or {}
    columns = _columns(config.kwargs)
    unexpected = int(result.get("unexpected_count") or 0)
    examples = _examples(table, columns, result.get("partial_unexpected_list") or []) if not item.success else ()
    return Outcome(
        table=table.name,
        expectation=config.type,
        column=", ".join(columns),
        says=config.description,
        advice=config.notes,
        limit=_limit(config.kwargs),
        severity="warning" if config.severity.value == "warning" else "critical",
        passed=bool(item.success),
        rows=len(table.frame),
        unexpected_rows=unexpected,
        observed=_exception(item) or _only_value(table, columns) or _observed(result, unexpected, len(table.frame)),
        examples=examples,
    )


def _columns(kwargs: Mapping[str, Any]) -> list[str]:
    named = [kwargs[name] for name in ("column", "column_A", "column_B") if kwargs.get(name)]
    return [str(name) for name in (*named, *kwargs.get("column_list", ()))]


def _limit(kwargs: Mapping[str, Any]) -> str:
    return ", ".join(say(kwargs[name]) for name, say in LIMITS.items() if name in kwargs)


def _only_value(table: CheckedTable, columns: Sequence[str]) -> str:
    """Of a table of one row (a share of all rows, a licence) the value itself says more than a count."""
    return _shown(table.frame[columns[0]].iloc[0]) if len(table.frame) == 1 and len(columns) == 1 else ""


def _observed(result: Mapping[str, Any], unexpected: int, rows: int) -> str:
    if "unexpected_count" in result:
        share = f"({100 * unexpected / max(rows, 1):.3g} %)"
        return f"{unexpected:,} of {rows:,} rows break it {share}" if unexpected else "all rows"
    if result.get("partial_missing_list"):
        return f"missing: {', '.join(map(str, result['partial_missing_list']))}"
    seen = result.get("observed_value")
    return "all are there" if seen is None else _shown(seen)  # a contained set reports what is missing alone


def _examples(table: CheckedTable, columns: Sequence[str], values: Sequence[Any]) -> tuple[Example, ...]:
    """The first rows that have one of the unexpected values. A row is judged by its values alone, so they break it."""
    hit = pd.Series(False, index=table.frame.index)
    for value in values:
        wanted = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
        pairs = zip(columns, wanted, strict=True)
        alike = [table.frame[name].isna() if _absent(one) else table.frame[name].eq(one) for name, one in pairs]
        hit |= pd.concat(alike, axis=1).all(axis=1)
    rows = table.frame.loc[hit].head(EXAMPLES_SHOWN)
    return tuple(_example(table, columns, row) for row in rows.to_dict("records"))


def _example(table: CheckedTable, columns: Sequence[str], row: Mapping[Any, Any]) -> Example:
    values = [_shown(row[name]) for name in columns]
    named = values if len(values) == 1 else [f"{name} {value}" for name, value in zip(columns, values, strict=True)]
    about = _shown(row[table.about]) if table.about and table.about not in columns else ""
    return Example(" / ".join(_shown(row[name]) for name in table.key), ", ".join(named), about)


def _absent(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _shown(value: Any, characters: int = VALUE_CHARACTERS) -> str:
    if _absent(value):
        return "none"
    if isinstance(value, float):
        text = f"{value:,.0f}" if value.is_integer() else f"{value:,.4g}"
    else:
        text = str(value) if str(value).strip() else "blank"
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _exception(item: Any) -> str:
    """What went wrong while checking (a column that is not there), or "". One such fact per metric, or one in all."""
    info = item.exception_info or {}
    facts = [info] if "raised_exception" in info else list(info.values())
    return next((_shown(fact["exception_message"]) for fact in facts if fact.get("raised_exception")), "")
