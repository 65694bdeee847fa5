"""How a suite is written down: one line per expectation, with what it says in words and what to do if it fails."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from great_expectations.core import ExpectationSuite
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity


@dataclass(frozen=True)
class CheckedTable:
    """A table of an artifact: one row per picture, caption, file, ..."""

    name: str
    key: tuple[str, ...]  # the columns that name a row
    frame: pd.DataFrame
    about: str = ""  # a column that is shown beside every example: a caption says more than its number of words


def critical(kind: type[Expectation], says: str, advice: str, **limits: Any) -> Expectation:
    """An expectation that stops the run when it fails."""
    return kind(severity=FailureSeverity.CRITICAL, description=says, notes=advice, **limits)


def warning(kind: type[Expectation], says: str, advice: str, **limits: Any) -> Expectation:
    """An expectation whose failure is shown, and stops nothing."""
    return kind(severity=FailureSeverity.WARNING, description=says, notes=advice, **limits)


def suite(name: str, *expectations: Expectation) -> ExpectationSuite:
    """The expectations of one table; the number in `meta` keeps their order, which a validation does not."""
    for number, expectation in enumerate(expectations):
        expectation.meta = {"number": number}
    return ExpectationSuite(name=name, expectations=list(expectations))
