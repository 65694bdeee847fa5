"""Whether a judged candidate may replace the champion, and the reason that goes into the ledger."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import GateError
from vlm_assets.release.gate import VERDICT, Verdict
from vlm_assets.release.history import champion_to_beat, history
from vlm_assets.release.ledger import LedgerEntry


def reason_to_release(
    report: Path, candidate: ArtifactRef, bundle: str, entries: Sequence[LedgerEntry], force_reason: str
) -> str:
    """Why `candidate` becomes champion after `entries`: the verdict's words, or the force and what spoke against it.

    `report` is the directory of the eval_report. GateError if something speaks against it and nobody forces it, or if
    the report is about another candidate.
    """
    verdict = Verdict.from_json(json.loads((report / VERDICT).read_text()))
    lineage: dict[str, Any] = json.loads((report / "scores.json").read_text())["lineage"]
    _check_same_candidate(lineage, candidate)
    against = [*_withdrawn(entries, bundle), *_stale(lineage, champion_to_beat(entries, candidate))]
    against += [] if verdict.passed else [verdict.why]
    if not against:
        return verdict.why
    if force_reason:
        return f"forced: {force_reason} (against: {'; '.join(against)})"
    raise GateError(
        f"The candidate may not be released: {'; '.join(against)}. Train a better one, or set force_reason on "
        "released_model."
    )


def _check_same_candidate(lineage: dict[str, Any], candidate: ArtifactRef) -> None:
    judged = lineage["finetuned_model"]
    if judged != candidate.version:
        raise GateError(
            f"eval_report judged candidate {judged}, to be released is {candidate.version}. "
            "Materialize eval_report again."
        )


def _withdrawn(entries: Sequence[LedgerEntry], bundle: str) -> list[str]:
    """What people took out of service does not come back by itself when the same candidate is made again."""
    left = history(entries).withdrawn.get(bundle)
    return [f"bundle {bundle} was rolled back (ledger entry {left.number}: {left.why})"] if left else []


def _stale(lineage: dict[str, Any], champion: ArtifactRef | None) -> list[str]:
    """A verdict holds against the champion that it was made against, and no other."""
    judged, now = lineage.get("champion", "none"), champion.version if champion else "none"
    if judged == now:
        return []
    return [f"it was judged against the champion {judged}, but the champion is {now}: materialize eval_report again"]
