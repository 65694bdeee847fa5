"""Settings of the `release` stage."""

import dagster as dg
from pydantic import Field


class ReleaseConfig(dg.Config):
    """How `released_model` acts on the verdict."""

    force_reason: str = Field(
        default="",
        description="Promote against the verdict, a champion that came after it, or a rollback, for this reason; it "
        "goes into the ledger. Empty: never.",
    )


class PromoteConfig(dg.Config):
    """Which candidate, and why."""

    version: str = Field(description="Version of a bundle, or of a finetuned_model.")
    reason: str = Field(description="Why it is released against the gate, or without it; goes into the ledger.")


class RollbackConfig(dg.Config):
    """Which earlier champion, and why."""

    version: str = Field(default="", description="Version of an earlier champion; empty: the one before the current.")
    only_if_champion: str = Field(
        default="", description="Version of the bundle to be replaced: if another one is champion, nothing is done."
    )
    reason: str = Field(description="What is wrong with the current champion; goes into the ledger.")
