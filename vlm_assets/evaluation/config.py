"""Settings of the evaluation."""

import dagster as dg
from pydantic import Field

from vlm_assets.release.gate import GateConfig


class MeasureConfig(dg.Config):
    """How captions are made and counted. How they are generated comes with the bundle, as in serving."""

    max_pictures: int = Field(default=0, ge=0, description="Caption at most this many pictures per split; 0 is all.")
    batch_size: int = Field(default=32, ge=1, le=1024, description="Pictures per forward pass.")
    resamples: int = Field(default=1000, ge=100, le=100_000, description="Bootstrap resamples for every interval.")
    seed: int = Field(default=0, ge=0, description="Seed of the bootstrap and of a gallery's random pictures.")
    threads: int = Field(default=0, ge=0, le=256, description="CPU threads; 0 is as many as the process may use.")


class EvalConfig(MeasureConfig):
    """How `eval_report` captions, counts and judges."""

    splits: list[str] = Field(
        default=["test", "test_*", "val"],
        description="Splits to caption, as names or patterns. `test` is the headline and is always among them.",
    )
    min_slice: int = Field(default=10, ge=2, description="Slices with fewer pictures than this are not shown.")
    gallery_pictures: int = Field(default=12, ge=1, le=100, description="Pictures per part of the report's gallery.")
    gate: GateConfig = Field(default=GateConfig(), description="What the candidate must reach to be released.")


class ChampionConfig(MeasureConfig):
    """How `champion_report` captions, counts and warns."""

    min_pictures: int = Field(
        default=30,
        ge=2,
        description="Independent test pictures, now and at its release, that the comparison of the two needs; with "
        "fewer it does not warn.",
    )
