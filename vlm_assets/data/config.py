"""Run config of the data stage. The defaults are the embedded default: OpenMoji's people in their roles."""

import os
from typing import Any, Literal

import dagster as dg
from pydantic import Field, field_validator, model_validator

from vlm_assets.data.dedup import Thresholds
from vlm_assets.data.encoding import Encoding
from vlm_assets.data.quality import FLAGS, QualityLimits
from vlm_assets.data.shards import ShardSettings
from vlm_assets.data.sources.coco import CocoConfig
from vlm_assets.data.sources.deepfashion import DeepFashionConfig
from vlm_assets.data.sources.flickr30k import Flickr30kConfig
from vlm_assets.data.sources.huggingface import HuggingFaceConfig
from vlm_assets.data.sources.image_folder import ImageFolderConfig
from vlm_assets.data.sources.openmoji import OpenMojiConfig
from vlm_assets.data.sources.table import TableConfig
from vlm_assets.data.sources.webdataset import WebDatasetConfig
from vlm_assets.data.split import Holdout, SplitPlan
from vlm_assets.data.splits import SplitSettings
from vlm_assets.data.versioning import RegistryConfig

AnySourceConfig = (
    OpenMojiConfig
    | ImageFolderConfig
    | TableConfig
    | HuggingFaceConfig
    | CocoConfig
    | Flickr30kConfig
    | DeepFashionConfig
    | WebDatasetConfig
    | RegistryConfig
)


PLACES = ("path", "pictures")


class RawDatasetConfig(dg.Config):
    """Where pictures and captions come from."""

    source: AnySourceConfig = Field(
        default=OpenMojiConfig(), discriminator="kind", description="the source, by its kind"
    )
    max_bad_fraction: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="share of the source's rows that may be unusable before the import fails; rows that its settings "
        "skip count on neither side",
    )
    corrections: Literal["mix", "ignore"] = Field(
        default="mix", description="mix: captions in feedback_captions, if there are any, come behind the source's own"
    )

    def content(self) -> dict[str, Any]:
        """What decides the snapshot beside the source's own content: the settings, less the places where it lies.

        The same folder moved, mounted elsewhere or on another machine is the same data set.
        """
        settings = self.model_dump(exclude={"corrections"})
        return {**settings, "source": {key: settings["source"][key] for key in settings["source"] if key not in PLACES}}


class HoldoutConfig(dg.Config):
    """Values of caption slots that training never sees; they become the split test_<name>."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="the split is called test_<name>")
    slots: list[str] = Field(min_length=1, description="slots whose combined values are held out, such as role")
    fraction: float = Field(gt=0, lt=1, description="share of the combinations of values to hold out, chosen by hash")


UNSEEN_ROLE = {"name": "unseen_role", "slots": ["role"], "fraction": 0.06}
UNSEEN_DRAWING = {"name": "unseen_drawing", "slots": ["role", "gender"], "fraction": 0.08}


class SplitConfig(dg.Config):
    """What is good enough, what is the same picture, and who trains and tests."""

    min_side_px: int = Field(default=32, ge=1, description="pictures with a shorter side below this are dropped")
    max_aspect_ratio: float = Field(
        default=4.0, ge=1, description="pictures whose longer side / shorter side is above are dropped"
    )
    min_entropy_bits: float = Field(
        default=0.1, ge=0, le=8, description="pictures with less information (one flat colour) are dropped"
    )
    min_caption_characters: int = Field(default=2, ge=1, description="shorter captions are dropped")
    max_caption_characters: int = Field(default=500, ge=1, description="longer captions are dropped")
    min_sharpness: float = Field(
        default=30.0, ge=0, description="blurred pictures (variance of the Laplacian at 256 px below this) are flagged"
    )
    min_brightness: float = Field(default=0.1, ge=0, le=1, description="darker pictures (mean of 0..1) are flagged")
    max_brightness: float = Field(default=0.97, ge=0, le=1, description="brighter pictures are flagged")
    min_contrast: float = Field(
        default=0.03, ge=0, le=0.5, description="pictures with less contrast (standard deviation of 0..1) are flagged"
    )
    max_caption_tokens: int = Field(
        default=40,
        ge=3,
        description="captions that need more are flagged, by a lower bound; the base model's own limit cuts them",
    )
    max_caption_share: float = Field(
        default=0.05, gt=0, le=1, description="one caption on more than this share of the pictures is flagged"
    )
    max_phrase_share: float = Field(
        default=0.5, gt=0, le=1, description="the same words around more than this share of the captions are flagged"
    )
    drop_flagged: list[str] = Field(
        default=[],
        description="flags that drop the picture or caption as well, such as blurred or has_sku. Dropped in any case: "
        "pictures too small, too elongated or without content; captions with a length out of bounds, with HTML, URLs, "
        "e-mail addresses, telephone numbers or wrongly decoded text, and file names in place of captions",
    )
    near_duplicate_mean_levels: float = Field(
        default=4.5,
        ge=0,
        le=255,
        description="near duplicates: largest mean difference of aligned thumbnails, in levels of 0..255",
    )
    near_duplicate_cell_levels: float = Field(
        default=24.0,
        ge=0,
        le=255,
        description="near duplicates: largest difference of any of their 16 x 16 cells, in levels of 0..255",
    )
    train_fraction: float = Field(default=0.75, gt=0, le=1, description="share of clusters that train")
    val_fraction: float = Field(default=0.10, ge=0, lt=1, description="share of clusters for choosing checkpoints")
    test_fraction: float = Field(
        default=0.15, ge=0, lt=1, description="share of clusters for the report; the three add up to 1"
    )
    val_of_given_train: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the source's own training rows that validate: for sources that give train and test only",
    )
    holdouts: list[HoldoutConfig] = Field(
        default=[
            UNSEEN_ROLE,
            UNSEEN_DRAWING,
        ],  # plain values, as Dagster's defaults must be; pydantic makes models of them
        validate_default=True,
        description="applied in order, before the ordinary split; sources without slots are not affected",
    )
    seed: int = Field(default=0, ge=0, description="another seed, another split")

    @field_validator("drop_flagged")
    @classmethod
    def _known_flags(cls, names: list[str]) -> list[str]:
        unknown = [name for name in names if name not in FLAGS]
        if unknown:
            raise ValueError(f"unknown flag {', '.join(unknown)}; there are {', '.join(FLAGS)}")
        return names

    @model_validator(mode="after")
    def _limits_leave_room(self) -> "SplitConfig":
        faults = [
            f"min_{name} {low} is above max_{name} {high}"
            for name in ("caption_characters", "brightness")
            if (low := getattr(self, f"min_{name}")) > (high := getattr(self, f"max_{name}"))
        ]
        if faults:
            raise ValueError(f"{'; '.join(faults)}: nothing would be left. Swap them, or leave one out.")
        return self

    def settings(self) -> SplitSettings:
        """The same, in terms of the data stage."""
        holdouts = tuple(Holdout(item.name, tuple(item.slots), item.fraction) for item in self.holdouts)
        return SplitSettings(
            QualityLimits(
                self.min_side_px,
                self.max_aspect_ratio,
                self.min_entropy_bits,
                self.min_caption_characters,
                self.max_caption_characters,
                self.min_sharpness,
                self.min_brightness,
                self.max_brightness,
                self.min_contrast,
                self.max_caption_tokens,
                self.max_caption_share,
                self.max_phrase_share,
                tuple(self.drop_flagged),
            ),
            Thresholds(self.near_duplicate_mean_levels, self.near_duplicate_cell_levels),
            SplitPlan(
                self.train_fraction,
                self.val_fraction,
                self.test_fraction,
                holdouts,
                self.seed,
                self.val_of_given_train,
            ),
        )


class ShardsConfig(dg.Config):
    """How model-ready shards are written. `workers` and `nodes` change how long it takes, never what comes out."""

    encoding: Encoding = Field(
        default="png",
        description="png: lossless; jpeg, webp: smaller, and the model trains on what `quality` leaves; raw: uint8 "
        "behind a PPM header, the largest and fastest to read",
    )
    quality: int = Field(default=95, ge=1, le=100, description="of jpeg and webp; webp at 100 is lossless")
    shard_mb: int = Field(default=128, ge=1, le=4096, description="about how many MB of pictures go into one file")
    workers: int = Field(default=0, ge=0, le=1024, description="cores a machine; 0: all that it may use")
    nodes: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="more than one: the Ray cluster at VLM_RAY_ADDRESS, or the one that this machine belongs to, makes "
        "them; the store must be on a disk that all nodes see",
    )

    def recipe(self) -> dict[str, Any]:
        """What decides the bytes."""
        return self.model_dump(exclude={"workers", "nodes"})

    def settings(self) -> ShardSettings:
        """The same, in terms of the data stage, with VLM_RAY_ADDRESS."""
        return ShardSettings(
            self.encoding,
            self.quality,
            self.shard_mb * 1024 * 1024,
            self.workers,
            self.nodes,
            os.environ.get("VLM_RAY_ADDRESS", ""),
        )
