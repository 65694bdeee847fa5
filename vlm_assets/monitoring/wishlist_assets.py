"""The asset `wanted_captions`: what to ask people for when traffic drifts and nothing shows the new kind yet."""

import json
from dataclasses import asdict
from pathlib import Path

import dagster as dg
from pydantic import Field

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.monitoring.alerts import Alert, send_alert
from vlm_assets.monitoring.retraining import WINDOW_TAG
from vlm_assets.monitoring.wishlist import wish_table, wishes
from vlm_assets.resources import StoreResource, request_log_dir
from vlm_assets.store import Draft

CODE_VERSION = "1"
LIST, TABLE = "pictures.json", "pictures.md"


class WishlistConfig(dg.Config):
    """How long the list is."""

    count: int = Field(default=50, ge=1, le=1000, description="Pictures to ask captions for.")


@dg.asset(
    group_name="monitoring",
    kinds={"python"},
    owners=["team:vlm"],
    code_version=CODE_VERSION,
    description="Pictures of the window to caption, those that would teach most first, with thumbnails",
)
def wanted_captions(
    context: dg.AssetExecutionContext,
    config: WishlistConfig,
    store: StoreResource,
    request_log: ArtifactRef,
    released_model: ArtifactRef,
) -> dg.MaterializeResult[ArtifactRef]:
    """Ranks what the released model captioned in the window; if drift asked for it, the webhook of alerts is told."""
    from vlm_serving.feedback_log import read_feedback
    from vlm_serving.kept_pictures import read_picture_of

    opened, serving = store.open(), request_log_dir()
    corrected = sorted({row.caption_id for row in read_feedback(serving / "feedback")})
    inputs = {"corrected": "\n".join(corrected)}
    recipe = Recipe("wanted_captions", CODE_VERSION, config.model_dump(), (request_log, released_model), inputs)

    def write(draft: Draft) -> None:
        listed = wishes(
            opened.directory(request_log), opened.directory(released_model), config.count, set(corrected),
            lambda caption_id: read_picture_of(serving / "pictures", caption_id),
        )  # fmt: skip
        plain = [{name: value for name, value in asdict(one).items() if name != "thumbnail"} for one in listed]
        (draft.path / LIST).write_text(json.dumps(plain, indent=1) + "\n")
        (draft.path / TABLE).write_text(wish_table(listed) + "\n")
        draft.counts["pictures"] = len(listed)

    built = opened.build(recipe, write)
    count = built.ref.counts["pictures"]
    if WINDOW_TAG in context.run.tags:  # the drift sensor asked for it
        send_alert(Alert("pictures to caption", _said(count, built.path), "warning"), context.log.info)
    return dg.MaterializeResult(
        value=built.ref,
        data_version=dg.DataVersion(built.ref.version),
        metadata={
            "dagster/row_count": count,
            "dagster/uri": built.ref.uri,
            "pictures": dg.MetadataValue.md((built.path / TABLE).read_text()),
        },
    )


def _said(count: int, path: Path) -> str:
    return (
        f"Traffic has drifted and there is nothing new to learn from. {count} pictures would teach most: see the asset "
        f"wanted_captions, or {path / TABLE}; send their captions to POST /v1/feedback."
    )
