"""The asset `feedback_captions`: corrections that may teach, as a snapshot like the one that they are mixed into."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.data.checks import checked
from vlm_assets.data.metadata import table
from vlm_assets.data.raw import import_source
from vlm_assets.data.tables import QUARANTINE, RAW_ROWS, read_json, read_rows, write_json, write_rows
from vlm_assets.monitoring.corrections import ATTRIBUTION, CorrectionSource, Sifted, TrustRules, sift
from vlm_assets.resources import StoreResource, request_log_dir
from vlm_assets.store import Draft

CODE_VERSION = "1"
REFUSED = "refused.parquet"
SAMPLE_ROWS = 5
# Words that a caption of a picture does not need; a start, to be replaced by a list of one's own.
REFUSED_WORDS = ["asshole", "bastard", "bitch", "bullshit", "cunt", "fuck", "nigger", "shit", "slut", "whore"]


class FeedbackConfig(dg.Config):
    """Which corrections are believed."""

    directory: str = Field(default="", description="Serving's request log. Empty: VLM_REQUEST_LOG, or the home's.")
    trusted_keys: list[str] = Field(default=[], description="Names of API keys whose corrections count by themselves.")
    blocked_keys: list[str] = Field(default=[], description="Names of API keys whose corrections never count.")
    agreement: int = Field(
        default=1, ge=1, description="So many keys that are not trusted must say the same of a picture. 1: each counts."
    )
    max_per_key_hour: int = Field(default=500, ge=1, description="Corrections of a key in an hour; more are left out.")
    max_same_share: float = Field(
        default=0.5, gt=0, le=1, description="A key that says one caption of more than this share is left out with it."
    )
    refused_words: list[str] = Field(default=REFUSED_WORDS, description="Beginnings of words that no caption may have.")

    def rules(self) -> TrustRules:
        """The same for `sift`."""
        return TrustRules(
            frozenset(self.trusted_keys), frozenset(self.blocked_keys), self.agreement, self.max_per_key_hour,
            self.max_same_share, tuple(self.refused_words),
        )  # fmt: skip


@dg.asset(
    group_name="data",
    kinds={"python", "parquet"},
    owners=["team:vlm"],
    code_version=CODE_VERSION,
    description="What people said over POST /v1/feedback, with the pictures; the refused with reasons.",
)
def feedback_captions(
    context: dg.AssetExecutionContext, config: FeedbackConfig, store: StoreResource
) -> dg.MaterializeResult[ArtifactRef]:
    """No corrections is a legitimate artifact without rows; raw_dataset is then as it was."""
    sifted = sift_log(Path(config.directory) if config.directory else request_log_dir(), config.rules())
    context.log.info(f"{len(sifted.accepted)} corrections accepted; refused: {sifted.reasons() or 'none'}")
    source = CorrectionSource(sifted.accepted)
    recipe = Recipe("feedback_captions", CODE_VERSION, inputs={"source": source.fingerprint()})

    def write(draft: Draft) -> None:
        draft.counts |= write_corrections(draft.path, sifted, context.log.info)

    built = store.open().build(recipe, write)
    return dg.MaterializeResult(
        value=built.ref,
        data_version=dg.DataVersion(built.ref.version),
        metadata=_metadata(built.ref, built.path, sifted),
    )


@dg.asset_check(
    asset=feedback_captions,
    blocking=False,
    description="Great Expectations: the same of corrections as of every other caption",
)
def feedback_expectations(store: StoreResource, feedback_captions: ArtifactRef) -> dg.AssetCheckResult:
    """Warns and names the rows; what they are mixed into is checked again, and stops the run there."""
    opened = store.open()
    path = opened.directory(feedback_captions)
    if not feedback_captions.counts["accepted"]:
        return dg.AssetCheckResult(passed=True, description="there are no corrections yet")
    from vlm_assets.data.expectations.raw import RawLimits, raw_suites, raw_tables

    return checked(opened, feedback_captions, raw_tables(path), raw_suites(RawLimits(1.0)), pictures=path)


def sift_log(log: Path, rules: TrustRules) -> Sifted:
    """The corrections in serving's log, with the pictures that were kept and what the model had said."""
    from vlm_serving.feedback_log import read_feedback
    from vlm_serving.kept_pictures import read_picture_of
    from vlm_serving.request_log import read_request_log

    rows = read_feedback(log / "feedback")
    table: Any = read_request_log(log).select(["request_id", "caption"]) if rows else None
    captions = dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True)) if rows else {}
    return sift(rows, lambda caption_id: read_picture_of(log / "pictures", caption_id), captions, rules)


def write_corrections(directory: Path, sifted: Sifted, log: Any) -> dict[str, int]:
    """Write the snapshot and the refused rows; returns the counts."""
    refused = [
        {"source_row": row.feedback_id, "file_name": row.caption_id, "reason": reason, "detail": detail}
        for row, reason, detail in sifted.refused
    ]
    write_rows(directory / REFUSED, QUARANTINE, refused)
    if not sifted.accepted:
        write_rows(directory / "rows.parquet", RAW_ROWS, [])
        write_json(directory / "summary.json", {"pictures": 0, "captions": 0})
        return {"accepted": 0, "pictures": 0}
    counts = import_source(CorrectionSource(sifted.accepted), directory, max_bad_fraction=1.0, log=log)
    return {**counts, "accepted": counts["captions"]}


def _metadata(ref: ArtifactRef, path: Path, sifted: Sifted) -> dict[str, Any]:
    refused: Sequence[dict[str, Any]] = [{"reason": name, "rows": count} for name, count in sifted.reasons().items()]
    sample = read_rows(path / "rows.parquet", ["image_id", "captions", "width", "height"])[-SAMPLE_ROWS:]
    shown = [{**row, "captions": "; ".join(row["captions"])} for row in sample]
    return {
        "accepted": ref.counts["accepted"],
        "refused": len(sifted.refused),
        "dagster/row_count": read_json(path / "summary.json")["pictures"],
        "dagster/uri": ref.uri,
        "attribution": ATTRIBUTION.text,
        **({"refused_by_reason": table(refused)} if refused else {}),
        **({"latest": table(shown)} if shown else {}),
    }
