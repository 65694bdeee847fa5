"""The asset `champion_report`: what is served, measured again on the pictures as they are now."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.data.metadata import table
from vlm_assets.evaluation.ancestry import originals_of, released_on, trained_on
from vlm_assets.evaluation.config import ChampionConfig
from vlm_assets.evaluation.display import CIDER, EXACT
from vlm_assets.evaluation.since_release import verdict
from vlm_assets.release.ledger import Ledger, LedgerEntry
from vlm_assets.resources import StoreResource, read_ref

NAME, CODE_VERSION = "champion_report", "1"
CORRECTIONS = dg.AssetKey("feedback_captions")
CHECK = "champion_holds"
NO_CHAMPION = "no champion yet: nothing to evaluate before released_model has released one"
BIASED = (
    "People correct what is wrong: this is a sample of mistakes, not of traffic. Compare it with itself from week to "
    "week, never with the test pictures."
)
OF_CORRECTIONS = (CIDER.key, EXACT.key)


@dg.asset(
    group_name="evaluation",
    kinds={"python", "pytorch"},
    owners=["team:vlm"],
    code_version=CODE_VERSION,
    pool="compute",
    deps=[dg.AssetKey("released_model"), CORRECTIONS],  # the ledger says who is champion; corrections may be missing
    check_specs=[
        dg.AssetCheckSpec(
            CHECK, asset=NAME,
            description="CIDEr on today's test pictures is not surely lower than at its release. Warns only.",
        )
    ],
    description="The champion on the test pictures as they are now and on what people corrected, less what trained it; "
    "beside itself at its release.",
)  # fmt: skip
def champion_report(
    context: dg.AssetExecutionContext, config: ChampionConfig, store: StoreResource, tokenized_shards: ArtifactRef
):
    """Caption and score; or reuse the report on the same champion and pictures. Without a champion it says so."""
    opened = store.open()
    entries = Ledger(opened).entries()
    if not entries:
        context.log.info(NO_CHAMPION)
        return dg.MaterializeResult(metadata={"champion": NO_CHAMPION}, check_results=[_check(True, NO_CHAMPION)])
    champion = entries[-1].artifact
    then = released_on(opened, entries)
    corrections = read_ref(opened.backend, CORRECTIONS, context.run.run_id)
    if corrections and not corrections.counts.get("accepted"):
        corrections = None
    parents = tuple(ref for ref in (tokenized_shards, champion, then, corrections) if ref)
    recipe = Recipe(NAME, CODE_VERSION, config.model_dump(exclude={"threads"}), parents)
    lineage = {recipe.name: recipe.version, **{ref.name: ref.version for ref in parents}}

    def write(path: Path) -> None:
        from vlm_assets.evaluation.champion import Champion, write_champion_report
        from vlm_assets.evaluation.held_out import Pictures

        write_champion_report(
            path,
            Champion(
                opened.directory(champion), trained_on(opened, champion), opened.directory(then) if then else None
            ),
            Pictures(
                opened.directory(tokenized_shards),
                originals_of(opened, tokenized_shards),
                opened.directory(corrections) if corrections else None,
            ),
            config,
            lineage,
            context.log.info,
        )

    built = opened.build(recipe, lambda draft: write(draft.path))
    scores: dict[str, Any] = json.loads((built.path / "scores.json").read_text(encoding="utf-8"))
    passed, why = verdict(scores["since_release"])
    context.log.info(why)
    return dg.MaterializeResult(
        value=built.ref,
        data_version=dg.DataVersion(built.ref.version),
        metadata={**_metadata(scores, entries[-1]), "dagster/uri": built.ref.uri, "reused": built.reused},
        check_results=[_check(passed, why)],
    )


def _check(passed: bool, why: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(check_name=CHECK, passed=passed, severity=dg.AssetCheckSeverity.WARN, description=why)


def _metadata(scores: dict[str, Any], champion: LedgerEntry) -> dict[str, Any]:
    """Numbers by themselves, so that Dagster draws them over the weeks."""
    test, corrected = scores["pictures"]["test"], scores["pictures"]["corrections"]
    since = scores["since_release"]
    metadata: dict[str, Any] = {
        "champion": champion.bundle_version,
        "ledger_entry": champion.number,
        "pictures": test["n"],
        "left_out": test["left_out"],
        **_values(test["metrics"]),
        **_change_metadata(since),
        "corrections": corrected["n"],
    }
    if not scores["champion"]["trained_on_is_known"]:
        metadata["note"] = "The store has no splits of the champion: some of these pictures may have trained it."
    if not corrected["n"] and not corrected["left_out"]:
        return metadata
    values = _values(corrected["metrics"])
    return {
        **metadata,
        "corrections_left_out": corrected["left_out"],
        **{f"corrections_{name}": values[name] for name in OF_CORRECTIONS if name in values},
        "corrections_note": BIASED,
    }


def _change_metadata(since: dict[str, Any]) -> dict[str, Any]:
    if since["why_not"]:
        return {"since_release": verdict(since)[1]}
    rows = [
        {
            "metric": metric.label,
            "now": metric.text(found["now"]),
            "at release": metric.text(found["then"]),
            "change": metric.text(found["value"], signed=True),
            "95 %": metric.interval(found, signed=True),
        }
        for metric in (CIDER, EXACT)
        for found in [since["metrics"][metric.key]]
    ]
    cider = since["metrics"][CIDER.key]
    return {
        "since_release": table(rows),
        "cider_at_release": cider["then"],
        "cider_change": cider["value"],
        "cider_change_low": cider["low"],
        "cider_change_high": cider["high"],
        "pictures_at_release": since["pictures"]["then"],
        "pictures_of_both": since["pictures"]["both"],
    }


def _values(metrics: dict[str, Any]) -> dict[str, float]:
    """Those that mean something: a note says of the others why not."""
    return {name: float(estimate["value"]) for name, estimate in metrics.items() if not estimate.get("note")}
