"""Asset of the evaluation group: what the candidate says of pictures it never saw, and how good that is."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import dagster as dg

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.evaluation.ancestry import originals_of, splits_of, trained_on
from vlm_assets.evaluation.config import EvalConfig
from vlm_assets.evaluation.display import CIDER, HEADLINE, short_protocol, shown
from vlm_assets.release.gate import VERDICT, Verdict, check_results, check_specs
from vlm_assets.release.history import champion_to_beat
from vlm_assets.release.ledger import Ledger
from vlm_assets.resources import StoreResource, TrackerResource

CODE_VERSION = "5"


@dg.asset(
    group_name="evaluation",
    kinds={"python", "pytorch", "mlflow"},
    owners=["team:vlm"],
    code_version=CODE_VERSION,
    pool="compute",
    check_specs=check_specs(),
    description="The candidate on held-out pictures, by the captioner that serves: BLEU, ROUGE-L, CIDEr, exact match, "
    "slot accuracy, with 95 % intervals, against its base, the champion and two baselines without a model.",
)
def eval_report(
    context: dg.AssetExecutionContext,
    config: EvalConfig,
    store: StoreResource,
    tracker: TrackerResource,
    tokenized_shards: ArtifactRef,
    finetuned_model: ArtifactRef,
    base_model: ArtifactRef,
):
    """Caption, score and draw; or reuse the report on the same candidate, champion and settings."""
    opened = store.open()
    rival = champion_to_beat(Ledger(opened).entries(), finetuned_model)
    parents = (tokenized_shards, finetuned_model, base_model)
    recipe = report_recipe(config, parents, rival)
    lineage = {recipe.name: recipe.version, **{ref.name: ref.version for ref in parents}, **recipe.inputs}

    def write(path: Path) -> None:
        from vlm_assets.evaluation.systems import Models
        from vlm_assets.evaluation.write import GALLERY, REPORT, SCORE_PLOT, SCORES, write_evaluation

        models = Models(opened.directory(finetuned_model), opened.directory(base_model))
        if rival:
            originals, past = originals_of(opened, tokenized_shards), trained_on(opened, rival)
            models = replace(models, champion=opened.directory(rival), originals=originals, champion_trained_on=past)
        with tracker.run(context, "eval_report") as run:
            scores = write_evaluation(
                path,
                opened.directory(tokenized_shards),
                models,
                config,
                lineage,
                context.log.info,
                splits_of(opened, tokenized_shards),
            )
            run.log_metrics(flat_scores(scores))
            for name in (REPORT, SCORES, SCORE_PLOT, GALLERY):
                run.log_artifact(path / name)

    built = opened.build(recipe, lambda draft: write(draft.path))
    verdict = Verdict.from_json(json.loads((built.path / VERDICT).read_text()))
    context.log.info(f"gate: {'passed' if verdict.passed else 'refused'}: {verdict.why}")
    return dg.MaterializeResult(
        value=built.ref,
        data_version=dg.DataVersion(built.ref.version),
        metadata={**report_metadata(built.path), "dagster/uri": built.ref.uri},
        check_results=check_results(verdict),
    )


def report_recipe(config: EvalConfig, parents: tuple[ArtifactRef, ...], champion: ArtifactRef | None) -> Recipe:
    """The champion decides the content too; a `finetuned_model` like the candidate, it is an input, not a parent."""
    settings = config.model_dump(exclude={"threads"})  # says how fast, not what
    return Recipe("eval_report", CODE_VERSION, settings, parents, {"champion": champion.version} if champion else {})


def flat_scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """Figures for MLflow: `candidate.test.cider`, …"""
    return {
        f"{system}.{split}.{metric}": float(estimate["value"])
        for system, measured in scores["systems"].items()
        for split, result in measured["splits"].items()
        for metric, estimate in result["metrics"].items()
    }


def score_table(scores: Mapping[str, Any], splits: Sequence[str]) -> list[dg.TableRecord]:
    """One record per split and system: each main metric with its interval, n, groups, digest of the split."""
    headline = scores["systems"]["candidate"]["splits"][scores["headline_split"]]["metrics"]
    systems: list[dict[str, Any]] = list(scores["systems"].values())
    records: list[dg.TableRecord] = []
    for split, measured in product(splits, systems):
        if split not in measured["splits"]:
            continue
        result = measured["splits"][split]
        cells = {
            metric.label: _unbroken(f"{metric.value(estimate)} ({metric.interval(estimate)})") if estimate else "–"
            for metric in shown(HEADLINE, headline)
            for estimate in [result["metrics"].get(metric.key)]
        }
        same = scores["splits"][split]
        first = {"pictures": _unbroken(split)} if len(splits) > 1 else {}  # what tells rows apart must not hang out
        which = {
            "pictures": _unbroken(split),
            "n": result["n"],
            "groups": same["clusters"],
            "split": same["sha256"][:12],
        }
        records.append(dg.TableRecord({**first, "captioner": _unbroken(measured["label"]), **cells, **which}))
    return records


def _score_tables(scores: Mapping[str, Any]) -> dict[str, dg.TableMetadataValue]:
    headline = scores["headline_split"]
    others = [split for split in scores["splits"] if split != headline]
    tables = {"scores": [headline], "scores_on_other_splits": others}
    return {name: dg.MetadataValue.table(score_table(scores, splits)) for name, splits in tables.items() if splits}


def _unbroken(text: str) -> str:
    """With spaces and hyphens that do not break: Dagster squeezes a wide table's cells into one word per line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}").replace("-", "\N{NON-BREAKING HYPHEN}")


def report_metadata(path: Path) -> dict[str, Any]:
    """What Dagster shows, read from the artifact, so that a reused one shows the same."""
    scores: dict[str, Any] = json.loads((path / "scores.json").read_text(encoding="utf-8"))
    candidate = scores["systems"]["candidate"]["splits"][scores["headline_split"]]
    key_scores = {name: float(estimate["value"]) for name, estimate in candidate["metrics"].items()}
    return {
        **_score_tables(scores),
        "plot": _picture(path / "scores.png"),
        "gallery": _picture(path / "gallery.png"),
        "report": dg.MetadataValue.path(str(path / "report.html")),
        "base": scores["base"]["description"],
        "pictures": candidate["n"],
        "protocol": short_protocol(scores["protocol"]),
        **leak_metadata(scores),
        **(
            {"notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in candidate["notes"]))}
            if candidate["notes"]
            else {}
        ),
        **key_scores,
    }


def leak_metadata(scores: Mapping[str, Any]) -> dict[str, str]:
    """What a naive split would have leaked and what that is worth, if the splits behind the shards are known."""
    if "leaks" not in scores:
        return {}
    leaks = scores["leaks"]
    naive, gain = leaks["naive_split"], leaks["inflation"]
    rows = f"a naive split leaks {naive['leaked_test_rows']:,.0f} of {naive['test_rows']:,.0f} test rows"
    worth = (
        f"to a copier worth CIDEr {CIDER.text(gain['value'], signed=True)} ({CIDER.interval(gain, signed=True)}) "
        f"on the {leaks['rows']:,} rows of the test pictures"
        if gain
        else "none of the test pictures' own"
    )
    return {"leak_inflation": f"{rows}, {worth}"}


def _picture(path: Path) -> dg.MetadataValue[Any]:
    data = base64.b64encode(path.read_bytes()).decode()
    return dg.MetadataValue.md(f"![{path.stem}](data:image/png;base64,{data})")
