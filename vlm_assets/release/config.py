"""Settings of the `release` stage."""

import dagster as dg
from pydantic import Field


class ReleaseConfig(dg.Config):
    """How `released_model` acts on the verdict."""

    force_reason: str = Field(
        default="", description="Promote against the verdict, for this reason; it goes into the ledger. Empty: never."
    )
